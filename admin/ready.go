package admin

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// livez says that the process runs. It asks nothing else, so that no state of
// a server can have the proxy restarted.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", contentTypeText)
	_, _ = io.WriteString(w, "ok\n")
}

// check is one condition of being ready.
type check struct {
	name string
	ok   bool
	why  string // what is the case
}

// readyz says whether clients should be sent here.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	checks := readiness(s.opt.Source.Process(), s.opt.Source.Databases())
	w.Header().Set("Content-Type", contentTypeText)
	ready := true
	var b strings.Builder
	for _, c := range checks {
		mark := "[+]"
		if !c.ok {
			mark, ready = "[-]", false
		}
		fmt.Fprintf(&b, "%s %s: %s\n", mark, c.name, c.why)
	}
	verdict := "ready\n"
	if !ready {
		verdict = "not ready\n"
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if !ready || r.URL.Query().Has("verbose") {
		_, _ = io.WriteString(w, b.String())
	}
	_, _ = io.WriteString(w, verdict)
}

// readiness judges the proxy. A shard without a primary does not take a proxy
// out as long as another has one: all proxies see the same nodes, and one that
// is taken out serves nobody.
func readiness(p Process, databases []Database) []check {
	yes := func(name string, ok bool, good, bad string) check {
		if ok {
			return check{name, true, good}
		}
		return check{name, false, bad}
	}
	shards, without := 0, 0
	for i := range databases {
		for j := range databases[i].Shards {
			shards++
			if databases[i].Shards[j].Primary() == nil {
				without++
			}
		}
	}
	draining := "a shutdown has begun"
	if !p.Draining {
		draining = "an operator has ordered DRAIN"
	}
	return []check{
		yes("configuration", !p.ConfiguredAt.IsZero(), "loaded", "not loaded"),
		yes("listening", p.Listening, "clients can connect", "no listener for clients is open"),
		yes("draining", !p.Draining && !p.Drained, "no shutdown has begun", draining),
		{"primaries", shards == 0 || without < shards, fmt.Sprintf("%d of %d shards have a primary", shards-without, shards)},
	}
}
