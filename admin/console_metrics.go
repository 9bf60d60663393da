package admin

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/wire"
)

// consoleMetrics are the console's own families.
type consoleMetrics struct {
	commands *prometheus.CounterVec
	sessions prometheus.GaugeFunc
	limit    prometheus.GaugeFunc
}

func newConsoleMetrics(c *Console) *consoleMetrics {
	return &consoleMetrics{
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shardproxy_console_commands_total",
			Help: "Console commands, by command and result (ok, denied, error).",
		}, []string{"command", "result"}),
		sessions: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shardproxy_console_sessions", Help: "Sessions of the console.",
		}, func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return float64(len(c.sessions))
		}),
		limit: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shardproxy_console_sessions_limit", Help: "Sessions of the console allowed.",
		}, func() float64 { return maxSessions }),
	}
}

func (m *consoleMetrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.commands, m.sessions, m.limit} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("admin: console metrics: %w", err)
		}
	}
	return nil
}

// count notes a command that was carried out, refused or failed.
func (m *consoleMetrics) count(cmd *command, e *wire.Error) {
	outcome := "ok"
	switch {
	case e == nil:
	case e.Code == "42501":
		outcome = "denied"
	default:
		outcome = "error"
	}
	m.commands.WithLabelValues(cmd.name, outcome).Inc()
}
