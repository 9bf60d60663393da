package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"shardproxy/audit"
	"shardproxy/auth"
	"shardproxy/config"
	"shardproxy/wire"
)

// Bounds of logging in over HTTP.
const (
	loginsAtOnce = 32
	loginTimeout = 12 * time.Second // the wait of those who failed before included
)

// Logins tells who somebody is by name and password; *auth.Authenticator does.
type Logins interface {
	// CheckPassword returns whose the password is, or a *wire.Error.
	CheckPassword(ctx context.Context, g auth.Given) (auth.Identity, error)
}

// access decides who may ask for what. It is safe for concurrent use.
type access struct {
	opt    Options
	logins chan struct{} // one entry for each password being checked
	told   told
}

// route is one path. What it takes stands here and nowhere else.
type route struct {
	pattern string // as of http.ServeMux
	needs   privilege
	// open is the word of admin.open that opens it to everybody; "" is none.
	open    string
	handler http.Handler
}

// probe reports whether it is asked by health checks: those ask by any name,
// and must be answered however many others ask.
func (r *route) probe() bool { return r.open == config.AdminOpenProbes }

type callerKey struct{}

// callerOf returns who a request is from; nobody where no password was asked for.
func callerOf(r *http.Request) auth.Identity {
	id, _ := r.Context().Value(callerKey{}).(auth.Identity)
	return id
}

func newAccess(o Options) *access {
	if o.Settings == nil {
		none := &config.Admin{Open: []string{config.AdminOpenProbes}}
		o.Settings = func() *config.Admin { return none }
	}
	return &access{opt: o, logins: make(chan struct{}, loginsAtOnce)}
}

// settings are those in force.
func (a *access) settings() *config.Admin { return a.opt.Settings() }

// letInKey is that of the settings by which a request was let in.
type letInKey struct{}

// stillLet reports whether the settings are those by which a request was let in.
func (a *access) stillLet(r *http.Request) bool {
	set, _ := r.Context().Value(letInKey{}).(*config.Admin)
	return set == a.settings()
}

// admit has a route serve those who may, and only by names that are its own.
func (a *access) admit(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set := a.settings()
		r = r.WithContext(context.WithValue(r.Context(), letInKey{}, set))
		if !rt.probe() && !a.knows(set, r.Host) {
			a.opt.Logger.Warn("admin request by a foreign name refused", "host", r.Host, "client", r.RemoteAddr, "path", r.URL.Path)
			http.Error(w, fmt.Sprintf("the name %q is not one of this address: admin.hosts lists those it may be asked by", r.Host), http.StatusMisdirectedRequest)
			return
		}
		if rt.open != "" && slices.Contains(set.Open, rt.open) {
			rt.handler.ServeHTTP(w, r)
			return
		}
		var id auth.Identity
		var ok bool
		if !set.AsksPassword() {
			ok = a.anonymous(w, rt, r)
		} else if id, ok = a.login(w, r); ok && !rt.needs.heldBy(id) {
			a.opt.Logger.Warn("admin request refused", "user", id.User, "client", r.RemoteAddr, "method", r.Method, "path", r.URL.Path)
			a.opt.Audit.Order(&audit.Order{Session: audit.Session{User: id.User, Client: r.RemoteAddr}, By: "http", Text: r.Method + " " + r.URL.Path, Outcome: audit.Refused, SQLState: "42501", Reason: "permission denied"})
			http.Error(w, fmt.Sprintf("permission denied for user %q", id.User), http.StatusForbidden)
			ok = false
		}
		if ok {
			rt.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, id)))
		}
	})
}

// anonymous lets somebody look where no password is asked for. What takes an
// admin user nobody is, but profiles are for who is on the machine already.
func (a *access) anonymous(w http.ResponseWriter, rt route, r *http.Request) bool {
	if rt.needs == mayLook || rt.needs == mayRead && onLoopback(r) {
		return true
	}
	http.Error(w, "this takes an admin user, and no password is asked for here: see admin.admin_users", http.StatusForbidden)
	return false
}

// onLoopback reports whether the address that was asked is of this machine only.
func onLoopback(r *http.Request) bool {
	own, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return loopback(own)
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// login returns who asks, or answers why not.
func (a *access) login(w http.ResponseWriter, r *http.Request) (auth.Identity, bool) {
	user, password, given := r.BasicAuth()
	if !given || a.opt.Logins == nil {
		a.challenge(w, "a name and a password are needed")
		return auth.Identity{}, false
	}
	select {
	case a.logins <- struct{}{}:
		defer func() { <-a.logins }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many log in at once", http.StatusServiceUnavailable)
		return auth.Identity{}, false
	}
	ctx, cancel := context.WithTimeout(r.Context(), loginTimeout)
	defer cancel()
	from, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http has it of the socket
	id, err := a.opt.Logins.CheckPassword(ctx, auth.Given{User: user, Password: password, Database: config.ConsoleDatabase, Addr: from, TLS: r.TLS})
	if err != nil {
		a.refuse(w, r, user, err)
		return auth.Identity{}, false
	}
	a.auditsLogin(r, id, from)
	return id, true
}

func (a *access) challenge(w http.ResponseWriter, why string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="shardproxy", charset="UTF-8"`)
	http.Error(w, why, http.StatusUnauthorized)
}

// refuse answers a login that failed. The reason is for the log.
func (a *access) refuse(w http.ResponseWriter, r *http.Request, user string, err error) {
	var we *wire.Error
	if !errors.As(err, &we) {
		we = wire.AsError(err)
	}
	a.opt.Logger.Warn("admin login failed", "user", user, "client", r.RemoteAddr, "error", we.Message, "cause", errors.Unwrap(we))
	a.opt.Audit.Login(&audit.Login{
		Session: audit.Session{User: user, Client: r.RemoteAddr}, By: "http", TLS: tlsOf(r), Outcome: audit.Refused, SQLState: we.Code, Reason: we.Error(), Console: true,
	})
	switch we.Code {
	case "28P01", "28000", "08P01":
		a.challenge(w, fmt.Sprintf("login failed for user %q", user))
	case "53300":
		w.Header().Set("Retry-After", "10")
		http.Error(w, we.Message, http.StatusTooManyRequests)
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the password cannot be checked now", http.StatusServiceUnavailable)
	}
}

// knows reports whether a request may ask by this name. A page of a foreign
// site whose name was made to point here asks by that name.
func (a *access) knows(set *config.Admin, host string) bool {
	name := hostName(host)
	if name == "" {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	own, _, _ := net.SplitHostPort(a.opt.Address)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || name == strings.ToLower(own) ||
		slices.ContainsFunc(set.Hosts, func(h string) bool { return hostName(h) == name })
}

// hostName is the name in a Host header, as names are compared; IPv6 addresses
// are without brackets.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// Exposures says what an operator should know of who can reach the address;
// nothing when only this machine can, or all is well. It is of the settings in
// force, and of the address since Open.
func (s *Server) Exposures() (all []string) {
	if own := s.Addr(); own == nil || loopback(own) {
		return nil
	}
	set := s.access.settings()
	switch {
	case !set.AsksPassword():
		all = append(all, "the admin address can be reached by others, and asks for no password: give admin.admin_users, or bind it to a loopback address")
	case s.opt.TLS == nil:
		all = append(all, "the admin address can be reached by others, and takes passwords without TLS: give admin.tls, or have something before it that encrypts")
	}
	return all
}
