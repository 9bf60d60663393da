package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"shardproxy/audit"
	"shardproxy/config"
)

// Bounds of the HTTP listener.
const (
	headerTimeout   = 5 * time.Second
	idleTimeout     = time.Minute
	answerTimeout   = 15 * time.Second // to write an answer
	scrapeTimeout   = 10 * time.Second
	scrapesAtOnce   = 4
	maxHeaderBytes  = 16 << 10
	profileTimeout  = 5 * time.Minute
	closeTimeout    = 3 * time.Second // for answers under way
	answersAtOnce   = 32
	contentTypeText = "text/plain; charset=utf-8"
)

// Options are what a Server needs; Address and Source are required.
type Options struct {
	// Address is the host:port to listen on; port 0 takes a free one.
	Address string
	Source  Source
	// Gatherer gives /metrics; a *prometheus.Registry does. nil serves the
	// families of NewCollector alone.
	Gatherer prometheus.Gatherer
	// Console is what /metrics?compat=pgbouncer speaks of; nil: that is refused.
	Console *Console
	Version string
	Logger  *slog.Logger     // discards when nil
	Clock   func() time.Time // time.Now when nil
	// Pprof serves net/http/pprof under /debug/pprof/. Who may ask for it can
	// slow the process down and read its memory.
	Pprof bool
	// Settings returns the section admin in force, which is not changed; nil
	// asks for no password and knows no names.
	Settings func() *config.Admin
	// Logins checks passwords; without it nobody gets in where one is asked for.
	Logins Logins
	// Steerer carries out what admin users order; nil: there are no such paths.
	Steerer Steerer
	// TLS has it speak TLS and nothing else; nil is none. It must not choose h2.
	TLS *tls.Config
	// Audit is told who logs in and what is ordered; nil: nobody is.
	Audit *audit.Log
}

// Server answers on the admin address: /livez, /readyz, /metrics, the dashboard
// and /api/v1/ under it. Who may ask for what is in its table of routes.
type Server struct {
	opt    Options
	http   *http.Server
	access *access
	orders *orders
	looks  *looks
	live   *live
	slots  chan struct{} // one entry for each answer under way

	// mu guards what follows.
	mu       sync.Mutex
	listener net.Listener
	closed   bool
	serving  sync.WaitGroup
}

// New returns a Server that listens nowhere yet.
func New(o Options) (*Server, error) {
	if o.Source == nil || o.Address == "" {
		return nil, errors.New("admin: options without source or address")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Gatherer == nil {
		r := prometheus.NewPedanticRegistry()
		if err := r.Register(NewCollector(MetricsOptions{Source: o.Source, Version: o.Version, Clock: o.Clock})); err != nil {
			return nil, fmt.Errorf("admin: metrics: %w", err)
		}
		o.Gatherer = r
	}
	s := &Server{
		opt: o, looks: newLooks(o), slots: make(chan struct{}, answersAtOnce),
		access: newAccess(o), orders: newOrders(o),
	}
	s.live = newLive(s.looks, s.access)
	h, err := s.handler()
	if err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Open listens and begins to serve. ctx bounds only the start.
func (s *Server) Open(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.listener != nil {
		return errors.New("admin: opened twice or closed")
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.opt.Address)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	if s.opt.TLS != nil {
		l = tls.NewListener(l, s.opt.TLS)
	}
	s.listener = l
	s.serving.Go(s.sample)
	s.serving.Go(func() {
		if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.opt.Logger.Error("admin listener failed", "error", err)
		}
	})
	return nil
}

// Addr returns the address listened on, nil before Open.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// sample keeps the history and what has happened until the server is closed.
func (s *Server) sample() {
	tick := time.NewTicker(eventEach)
	defer tick.Stop()
	for i := 0; ; i++ {
		s.looks.notice(i%int(sampleEach/eventEach) == 0)
		select {
		case <-tick.C:
		case <-s.live.ended:
			return
		}
	}
}

// Close stops listening, tells the dashboards that are open, lets answers under
// way end within three seconds, cuts the rest off and waits for it. It may be
// called again.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.live.end()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // what Shutdown waited for in vain
	}
	s.serving.Wait()
}

// handler returns everything that is served.
func (s *Server) handler() (http.Handler, error) {
	routes, err := s.routes()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, rt := range routes {
		rt.handler = s.bounded(rt)
		mux.Handle(rt.pattern, s.access.admit(rt))
	}
	return s.guard(mux), nil
}

// routes is the table of all paths.
func (s *Server) routes() ([]route, error) {
	all, err := pages()
	if err != nil {
		return nil, fmt.Errorf("admin: dashboard: %w", err)
	}
	all = append(all, s.looks.routes()...)
	all = append(all, s.orders.routes()...)
	scrape, err := s.scrapes()
	if err != nil {
		return nil, err
	}
	all = append(all,
		route{"GET " + livePath, mayLook, "", s.live},
		route{"GET /livez", mayLook, config.AdminOpenProbes, http.HandlerFunc(s.livez)},
		route{"GET /readyz", mayLook, config.AdminOpenProbes, http.HandlerFunc(s.readyz)},
		route{"GET /metrics", mayLook, config.AdminOpenMetrics, scrape},
	)
	if s.opt.Pprof {
		for pattern, h := range map[string]http.HandlerFunc{
			"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
		} {
			all = append(all, route{"GET /debug/pprof/" + pattern, mayRead, "", h})
		}
	}
	return all, nil
}

// scrapes serves the metrics, by the names that are asked for.
func (s *Server) scrapes() (http.Handler, error) {
	serve := func(g prometheus.Gatherer) http.Handler {
		return promhttp.HandlerFor(g, promhttp.HandlerOpts{
			ErrorLog:            slog.NewLogLogger(s.opt.Logger.Handler(), slog.LevelError),
			ErrorHandling:       promhttp.HTTPErrorOnError,
			MaxRequestsInFlight: scrapesAtOnce,
			Timeout:             scrapeTimeout,
		})
	}
	if s.opt.Console == nil {
		return compatible(serve(s.opt.Gatherer), nil), nil
	}
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(NewBouncerCollector(s.opt.Console)); err != nil {
		return nil, fmt.Errorf("admin: metrics: %w", err)
	}
	return compatible(serve(s.opt.Gatherer), serve(r)), nil
}

// bounded keeps too many answers from being made at once. A probe must be
// answered however many others are: it costs nothing. Those who look on have a
// bound of their own.
func (s *Server) bounded(rt route) http.Handler {
	if rt.probe() || rt.handler == http.Handler(s.live) {
		return rt.handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			rt.handler.ServeHTTP(w, r)
		default:
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		}
	})
}

// guard bounds what a request may cost, and keeps one that fails from ending
// the process.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		limit := answerTimeout
		if len(r.URL.Path) >= len("/debug/") && r.URL.Path[:len("/debug/")] == "/debug/" {
			limit = profileTimeout
			// The index of net/http/pprof carries its own style sheet.
			h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		}
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(limit))
		if r.ContentLength == 0 {
			_ = rc.SetReadDeadline(time.Time{}) // there is nothing to read, and it would end the request
		}
		defer s.recovered(w, r)
		next.ServeHTTP(w, r)
	})
}

// recovered turns a panic into an answer of 500.
func (s *Server) recovered(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	stack := make([]byte, 8<<10)
	s.opt.Logger.Error("admin request panicked", "path", r.URL.Path, "panic", p, "stack", string(stack[:runtime.Stack(stack, false)]))
	http.Error(w, "internal error", http.StatusInternalServerError)
}
