package admin

import (
	"bytes"
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
)

//go:embed page.html
var pageHTML string

// pageCSP lets the page do nothing but show itself and its style sheet, which
// stands in it under this hash.
const pageCSP = "default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page serves the status page.
type page struct {
	opt      Options
	template *template.Template
	csp      string
}

func newPage(o Options) (*page, error) {
	t, err := template.New("page").Funcs(template.FuncMap{"ago": ago}).Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("admin: status page: %w", err)
	}
	return &page{opt: o, template: t, csp: fmt.Sprintf(pageCSP, styleHash(pageHTML))}, nil
}

// status is what the page shows.
type status struct {
	Version string
	Now     string
	Up      time.Duration
	Verdict verdict
	Process Process
	// Held and Waiting count over all databases.
	Databases []databaseStatus
	Pools     []poolStatus
}

// verdict is the first line of the page: the worst that is the case.
type verdict struct {
	Class string // good, warn or bad
	Text  string
}

type databaseStatus struct {
	Database
	Nodes []nodeStatus
}

type nodeStatus struct {
	Shard, Address, Role, Health, Reason string
	Writes                               bool
	Lag, Since, LastError                string
	Idle, Active, Waiting                int
}

type poolStatus struct {
	Pool
	Wait string
}

// ServeHTTP implements http.Handler.
func (p *page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer // whole, so that an error is not half a page
	if err := p.template.Execute(&b, p.status()); err != nil {
		p.opt.Logger.Error("status page failed", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", p.csp)
	w.Header().Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(b.Bytes())
}

func (p *page) status() status {
	now := p.opt.Clock()
	process, databases := p.opt.Source.Process(), p.opt.Source.Databases()
	pools := mergePools(p.opt.Source.Pools())
	st := status{
		Version: p.opt.Version, Now: now.UTC().Format(time.RFC3339), Up: now.Sub(process.Started).Round(time.Second),
		Process: process, Verdict: judge(process, databases, pools, now),
	}
	for i := range databases {
		st.Databases = append(st.Databases, databaseStatus{databases[i], nodesOf(&databases[i], pools, now)})
	}
	for _, pl := range pools {
		st.Pools = append(st.Pools, poolStatus{pl, pl.MaxWait.Round(time.Millisecond).String()})
	}
	return st
}

func nodesOf(d *Database, pools []Pool, now time.Time) (all []nodeStatus) {
	for i := range d.Shards {
		sh := &d.Shards[i]
		for j := range sh.Nodes.Nodes {
			n := &sh.Nodes.Nodes[j]
			row := nodeStatus{
				Shard: sh.Name, Address: n.Address, Role: n.Role.String(), Health: n.Health.String(), Reason: n.Reason,
				Writes: sh.Primary() == n, Since: ago(n.Since, now),
			}
			if n.Lag.Known {
				row.Lag = fmt.Sprintf("%d bytes, %s", n.Lag.Bytes, n.Lag.Time.Round(time.Millisecond))
			}
			if n.LastError != "" {
				row.LastError = ago(n.LastErrorAt, now) + " ago: " + n.LastError
			}
			for _, p := range pools {
				if p.Database == d.Name && p.Shard == sh.Name && p.Address == n.Address {
					row.Idle += p.Idle
					row.Active += p.Lent
					row.Waiting += p.Waiting
				}
			}
			all = append(all, row)
		}
	}
	return all
}

// ago returns how long ago t was, in whole seconds; nothing for no time.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return max(now.Sub(t), 0).Round(time.Second).String()
}

// judge returns the verdict. What stops writes is bad, what is about to or was
// ordered is a warning.
func judge(p Process, databases []Database, pools []Pool, now time.Time) verdict {
	var bad, warn []string
	nodes, up := 0, 0
	for i := range databases {
		d := &databases[i]
		if d.Paused {
			warn = append(warn, "database "+d.Name+" is paused")
		}
		for j := range d.Shards {
			sh := &d.Shards[j]
			if sh.Primary() == nil {
				bad = append(bad, fmt.Sprintf("shard %s of %s has no primary (%s), %d statements held", sh.Name, d.Name, sh.Nodes.NoPrimary, sh.Gate.HeldNow))
			}
			for k := range sh.Nodes.Nodes {
				n := &sh.Nodes.Nodes[k]
				nodes++
				if n.Reason == "" {
					up++
					continue
				}
				warn = append(warn, fmt.Sprintf("node %s is %s for %s (%s)", n.Address, n.Health, ago(n.Since, now), n.Reason))
			}
		}
	}
	for _, pl := range pools {
		if pl.Waiting > 0 {
			warn = append(warn, fmt.Sprintf("%d clients of %s wait for a connection to %s, the first for %s", pl.Waiting, pl.User, pl.Address, pl.MaxWait.Round(time.Millisecond)))
		}
	}
	switch {
	case p.Draining:
		bad = append(bad, "the proxy is shutting down")
	case !p.Listening:
		bad = append(bad, "the proxy does not listen for clients")
	}
	if p.ReloadError != "" {
		warn = append(warn, "the last reload failed: "+p.ReloadError)
	}
	switch {
	case len(bad) > 0:
		return verdict{"bad", strings.Join(append(bad, warn...), "; ")}
	case len(warn) > 0:
		return verdict{"warn", strings.Join(warn, "; ")}
	}
	return verdict{"good", fmt.Sprintf("All is well: %d of %d nodes are used, and nothing waits.", up, nodes)}
}
