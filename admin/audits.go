package admin

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"shardproxy/audit"
	"shardproxy/auth"
)

// Bounds of what is remembered of logins over HTTP, where each request is one: a dashboard makes several a second.
const (
	toldAgain = time.Hour
	toldMax   = 1000
)

// told remembers whose logins have been written down.
type told struct {
	mu  sync.Mutex
	who map[toldKey]time.Time
}

type toldKey struct {
	user string
	from netip.Addr
}

// first reports whether it is the first login of somebody, from an address, for a time.
func (t *told) first(k toldKey, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.who[k]; ok && now.Sub(at) < toldAgain {
		return false
	}
	if t.who == nil || len(t.who) >= toldMax {
		t.who = map[toldKey]time.Time{}
	}
	t.who[k] = now
	return true
}

// auditsLogin writes down that somebody has logged in, once an hour.
func (a *access) auditsLogin(r *http.Request, id auth.Identity, from netip.AddrPort) {
	if !a.opt.Audit.HasLogins() || !a.told.first(toldKey{id.User, from.Addr()}, a.opt.Clock()) {
		return
	}
	a.opt.Audit.Login(&audit.Login{Session: audit.Session{User: id.User, Client: r.RemoteAddr}, By: "http", TLS: tlsOf(r), Outcome: audit.Done, Console: true})
}

// tlsOf names what a request was encrypted with, "" for nothing.
func tlsOf(r *http.Request) string {
	if r.TLS == nil {
		return ""
	}
	return tls.VersionName(r.TLS.Version) + "/" + tls.CipherSuiteName(r.TLS.CipherSuite)
}
