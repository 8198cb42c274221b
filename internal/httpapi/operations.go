package httpapi

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/common/expfmt"

	"neuroscreen"
	"neuroscreen/api"
)

func (s *Server) GetHealth(ctx context.Context, _ GetHealthRequestObject) (GetHealthResponseObject, error) {
	return GetHealth200JSONResponse{Status: Ok, Version: ptr(s.cfg.Version)}, nil
}

// GetReadiness asks every dependency. Which one is down is told; why is for
// the log.
func (s *Server) GetReadiness(ctx context.Context, _ GetReadinessRequestObject) (GetReadinessResponseObject, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	select {
	case <-s.closed:
		return nil, unready("server", errors.New("stopping"))
	default:
	}
	checks := append([]Check{{"database", s.cfg.Store.Ping}}, s.cfg.Checks...)
	for _, c := range checks {
		if err := c.Do(ctx); err != nil {
			return nil, unready(c.Name, err)
		}
	}
	return GetReadiness200JSONResponse{Status: Ok, Version: ptr(s.cfg.Version)}, nil
}

func unready(name string, err error) error {
	return &neuroscreen.Error{Code: neuroscreen.CodeUnavailable, Type: "unready", Message: "not ready: " + name, Err: err}
}

func (s *Server) GetMetrics(ctx context.Context, _ GetMetricsRequestObject) (GetMetricsResponseObject, error) {
	families, err := s.cfg.Metrics.Gather()
	if err != nil {
		s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "some metrics are missing", slog.Any("error", err))
	}
	var buf bytes.Buffer
	enc := expfmt.NewEncoder(&buf, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return nil, err
		}
	}
	return GetMetrics200TextResponse(buf.String()), nil
}

func (s *Server) GetContract(ctx context.Context, _ GetContractRequestObject) (GetContractResponseObject, error) {
	return GetContract200ApplicationYamlResponse{Body: bytes.NewReader(api.Contract), ContentLength: int64(len(api.Contract))}, nil
}
