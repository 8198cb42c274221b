package service

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"neuroscreen/internal/config"
	"neuroscreen/internal/httpapi"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/pipeline"
)

const (
	serverMemory = 128 << 20 // of a server that answers, without its uploads
	leastRoom    = 256 << 20 // for the analysis of a head of 1 mm, or its picture
)

// newRoom is what is left of the process' memory for what grows with a scan:
// analyses and pictures. Rest and uploads, which are bounded by number, have
// theirs beforehand, so that a scan that is being analysed keeps no upload
// away.
func newRoom(cfg config.Server, metrics *prometheus.Registry) (*memory.Gate, error) {
	rest := int64(0)
	if cfg.Role != "api" {
		rest += pipeline.RestMemory
	}
	if cfg.Role != "worker" {
		rest += serverMemory + int64(cfg.MaxUploads)*httpapi.UploadMemory
	}
	room := int64(cfg.Memory) - rest
	switch {
	case cfg.Memory == 0:
		room = max(memory.Machine()/4*3-rest, leastRoom)
	case room < leastRoom:
		return nil, fmt.Errorf("--memory: %d MiB are too little, since the service takes %d MiB before the first scan; give it %d MiB and more",
			cfg.Memory>>20, rest>>20, (rest+leastRoom)>>20)
	}
	gate := memory.NewGate(room)
	metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "neuroscreen_memory_room_bytes", Help: "Memory for analyses and pictures."},
			func() float64 { return float64(gate.Size()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "neuroscreen_memory_estimated_bytes", Help: "Of it, what those under way are estimated to take."},
			func() float64 { return float64(gate.Used()) }),
	)
	return gate, nil
}
