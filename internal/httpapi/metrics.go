package httpapi

import "github.com/prometheus/client_golang/prometheus"

// metrics carry operation names and statuses only: nothing of a site, a key or
// a patient.
type metrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	problems    *prometheus.CounterVec
	inFlight    prometheus.Gauge
	streams     prometheus.Gauge
	uploadBytes prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "neuroscreen_http_requests_total", Help: "Requests answered."}, []string{"operation", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "neuroscreen_http_request_seconds", Help: "Time from the request's header to the end of the answer.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 60}}, []string{"operation"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "neuroscreen_http_problems_total", Help: "Problems answered, by type."}, []string{"type"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "neuroscreen_http_requests_in_flight", Help: "Requests being answered."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "neuroscreen_http_event_streams", Help: "Open event streams."}),
		uploadBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "neuroscreen_http_upload_bytes_total", Help: "Bytes of scans received whole."}),
	}
	reg.MustRegister(m.requests, m.duration, m.problems, m.inFlight, m.streams, m.uploadBytes)
	return m
}
