package admin

import (
	"fmt"
	"strings"
	"time"

	"shardproxy/gate"
)

// The classes of a verdict, of its reasons and of shards.
const (
	classGood = "good"
	classWarn = "warn" // about to go wrong, or ordered
	classBad  = "bad"  // something cannot be served
)

// verdictReasons is how many reasons the verdict's text tells; all are beside it.
const verdictReasons = 3

// verdict says in words how the proxy is: the worst that is the case.
type verdict struct {
	Class   string   `json:"class" doc:"good, warn (about to go wrong, or ordered), or bad (something cannot be served)"`
	Text    string   `json:"text" doc:"the first reasons as one sentence"`
	Reasons []reason `json:"reasons" doc:"all reasons, the bad ones first; empty when all is well"`
}

type reason struct {
	Class string `json:"class" doc:"warn or bad"`
	Text  string `json:"text" doc:"what is the case, with names and figures"`
}

// reasons collects what a verdict rests on.
type reasons struct{ bad, warn []reason }

func (r *reasons) isBad(format string, args ...any) {
	r.bad = append(r.bad, reason{classBad, fmt.Sprintf(format, args...)})
}

func (r *reasons) warns(format string, args ...any) {
	r.warn = append(r.warn, reason{classWarn, fmt.Sprintf(format, args...)})
}

// judge returns the verdict. What stops writes is bad, what is about to or was
// ordered is a warning.
func judge(p Process, databases []Database, pools []Pool, now time.Time) verdict {
	var r reasons
	nodes, up := 0, 0
	for i := range databases {
		n, u := r.database(&databases[i], now)
		nodes, up = nodes+n, up+u
	}
	for _, pl := range pools {
		if pl.Waiting > 0 {
			r.warns("%d clients of %s wait for a connection to %s, the first for %s", pl.Waiting, pl.User, pl.Address, pl.MaxWait.Round(time.Millisecond))
		}
	}
	switch {
	case p.Draining:
		r.isBad("the proxy is shutting down")
	case !p.Listening:
		r.isBad("the proxy does not listen for clients")
	}
	if p.ReloadError != "" {
		r.warns("the last reload failed: %s", p.ReloadError)
	}
	v := verdict{Class: classGood, Reasons: append(append([]reason{}, r.bad...), r.warn...)}
	switch {
	case len(r.bad) > 0:
		v.Class = classBad
	case len(r.warn) > 0:
		v.Class = classWarn
	default:
		v.Text = fmt.Sprintf("All is well: %d of %d nodes are used, and nothing waits.", up, nodes)
		return v
	}
	var said []string
	for _, why := range v.Reasons[:min(len(v.Reasons), verdictReasons)] {
		said = append(said, why.Text)
	}
	if v.Text = strings.Join(said, "; "); len(v.Reasons) > verdictReasons {
		v.Text += fmt.Sprintf("; and %d more", len(v.Reasons)-verdictReasons)
	}
	return v
}

// database adds what is to be said of a database; it returns how many nodes
// there are, and how many are used.
func (r *reasons) database(d *Database, now time.Time) (nodes, up int) {
	if d.Paused {
		r.warns("database %s is paused", d.Name)
	}
	for j := range d.Shards {
		sh := &d.Shards[j]
		if sh.Primary() == nil {
			r.isBad("shard %s of %s has no primary (%s), %d statements held", sh.Name, d.Name, sh.Nodes.NoPrimary, sh.Gate.HeldNow)
		} else if sh.Gate.Closed {
			r.warns("shard %s of %s holds %d statements (%s)", sh.Name, d.Name, sh.Gate.HeldNow, sh.Gate.Reason)
		}
		if sh.Breaker.State != gate.BreakerClosed {
			r.isBad("shard %s of %s is left alone: %s", sh.Name, d.Name, brokenBy(&sh.Breaker))
		}
		for k := range sh.Nodes.Nodes {
			n := &sh.Nodes.Nodes[k]
			nodes++
			if n.Reason == "" {
				up++
				continue
			}
			if strings.Contains(sh.Nodes.NoPrimary, n.Address) {
				continue // it was said
			}
			r.warns("node %s is %s for %s (%s)", n.Address, n.Health, ago(n.Since, now), n.Reason)
		}
	}
	if len(d.Doubts) > 0 {
		r.warns("in doubt over the shards of %s: %d prepared, the oldest for %s", d.Name, len(d.Doubts), d.Doubts[0].Age.Round(time.Second))
	}
	return nodes, up
}

// ago returns how long ago t was, in whole seconds; nothing for no time.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return max(now.Sub(t), 0).Round(time.Second).String()
}
