package failover

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(2)
		r := prometheus.NewPedanticRegistry()
		m, _ := open(t, c, Options{Database: "shop", Shard: "s0", Registerer: r})
		open(t, newFakeCluster(2), Options{Database: "shop", Shard: "s1", Registerer: r})
		settle(time.Second)
		c.change(1, func(s *fakeServer) { s.err = syscall.ECONNREFUSED; s.breakConn() })
		settle(time.Second)
		got := gather(t, r)
		for name, want := range map[string]float64{
			"shardproxy_node_up s0 a":                   1,
			"shardproxy_node_up s0 b":                   0,
			"shardproxy_node_up s1 b":                   1,
			"shardproxy_node_role s0 a primary":         1,
			"shardproxy_node_role s0 b replica":         1,
			"shardproxy_node_lag_seconds s1 b":          0,
			"shardproxy_node_timeline s0 a":             1,
			"shardproxy_node_health_changes_total s0 b": 1,
			"shardproxy_shard_primary s0":               1,
			"shardproxy_shard_gate_closures_total s0":   1,
			"shardproxy_shard_held s0":                  0,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
			}
		}
		if got["shardproxy_node_probe_failures_total s0 b"] < 1 || got["shardproxy_node_probe_seconds s0 a"] < 1 {
			t.Errorf("probes are not counted: %v", got)
		}
		m.Close()
		if _, ok := gather(t, r)["shardproxy_node_up s0 a"]; ok {
			t.Error("metrics outlive the monitor")
		}
	})
}

// gather returns every sample by name, shard and further label values; of a
// histogram the count.
func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key, shard, rest := f.GetName(), "", ""
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "database":
				case "shard":
					shard = " " + l.GetValue()
				default:
					rest += " " + l.GetValue()
				}
			}
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out[key+shard+rest] = v
		}
	}
	return out
}
