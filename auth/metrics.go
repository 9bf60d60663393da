package auth

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/wire"
)

// metrics are the families of this package. Neither users nor addresses are
// labels: guessers would choose how many series there are.
type metrics struct {
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
	queries  *prometheus.CounterVec
}

// Values of the result label.
const (
	resultOK        = "ok"
	resultFailed    = "failed"    // wrong password, unknown user
	resultRefused   = "refused"   // a rule, a certificate, channel binding
	resultThrottled = "throttled" // too many failures before
	resultMalformed = "malformed" // not the protocol
	resultGone      = "gone"      // the client went away
	resultError     = "error"     // the proxy could not decide
)

func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	var we *wire.Error
	if !errors.As(err, &we) {
		return resultError
	}
	switch we.Code {
	case "28P01":
		return resultFailed
	case "28000":
		return resultRefused
	case "53300":
		return resultThrottled
	case "08P01", "0A000":
		return resultMalformed
	case "08006":
		return resultGone
	}
	return resultError
}

func newMetrics() *metrics {
	return &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shardproxy_client_auth_total",
			Help: "Logins that ended, by method of the rule and result.",
		}, []string{"method", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "shardproxy_client_auth_duration_seconds",
			Help:    "Time from StartupMessage to the end of the login, waiting for the client included.",
			Buckets: []float64{.001, .005, .02, .1, .5, 2, 10, 60},
		}, []string{"method"}),
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shardproxy_auth_query_total",
			Help: "Look-ups of users by auth_query: answered from the cache, found, absent or failed.",
		}, []string{"result"}),
	}
}

// register adds all families, those that read a's state included.
func (m *metrics) register(r prometheus.Registerer, a *Authenticator) error {
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	counter := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f)
	}
	for _, c := range []prometheus.Collector{
		m.attempts, m.duration, m.queries,
		gauge("shardproxy_auth_throttled_addresses", "Addresses whose failed logins are remembered; at most auth.throttle.max_addresses.",
			func() float64 { n, _, _ := a.throttle.counts(); return float64(n) }),
		counter("shardproxy_auth_throttle_waits_total", "Logins that had to wait because of earlier failures.",
			func() float64 { _, n, _ := a.throttle.counts(); return float64(n) }),
		counter("shardproxy_auth_throttle_refusals_total", "Logins refused because too many waited already.",
			func() float64 { _, _, n := a.throttle.counts(); return float64(n) }),
		gauge("shardproxy_auth_query_cached_users", "Answers of auth_query that are kept.",
			func() float64 { return float64(a.policy.Load().lookups.size()) }),
		gauge("shardproxy_auth_hashing", "Password hashes being computed.",
			func() float64 { return float64(len(a.policy.Load().deriver.slots)) }),
		gauge("shardproxy_auth_hashing_limit", "Password hashes that may be computed at once.",
			func() float64 { return float64(cap(a.policy.Load().deriver.slots)) }),
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("authentication: %w", err)
		}
	}
	return nil
}
