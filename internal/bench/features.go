package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// feature is a way to run the proxy that differs from the default in one thing.
type feature struct {
	name     string // as -features has it
	label    string // as the table has it
	replicas bool   // it needs some
	tls      bool   // it needs servers that have certificates
	change   func(*stage, *settings) error
	side     func(*endpoint) // what differs for the clients; nil for nothing
}

// The label that the goals look up.
const splitLabel = "reads split over replicas, session"

// allFeatures returns what can be measured, in the order of the table.
func allFeatures() []feature {
	set := func(change func(*settings)) func(*stage, *settings) error {
		return func(_ *stage, c *settings) error {
			change(c)
			return nil
		}
	}
	return []feature{
		{name: "tls-clients", label: "TLS of clients", tls: true, change: withClientTLS,
			side: func(e *endpoint) { e.sslmode = "require" }},
		{name: "tls-servers", label: "TLS to the servers", tls: true, change: set(func(c *settings) { c.serverTLS = "require" })},
		{name: "split", label: splitLabel, replicas: true, change: func(s *stage, c *settings) error {
			s.overReplicas(c)
			return nil
		}},
		{name: "split-eventual", label: "reads split over replicas, eventual", replicas: true, change: func(s *stage, c *settings) error {
			s.overReplicas(c)
			c.reads += ", consistency: eventual"
			return nil
		}},
		{name: "loops", label: "two loops", change: set(func(c *settings) { c.runtime = "loops: 2" })},
		{name: "wait-plain", label: "runtime.wait: plain", change: set(func(c *settings) { c.runtime = "wait: plain" })},
		{name: "goroutines", label: "runtime.driver: goroutine", change: set(func(c *settings) { c.runtime = "driver: goroutine" })},
		{name: "log-debug", label: "log.level: debug", change: set(func(c *settings) { c.logLevel = "debug" })},
		{name: "scraped", label: "metrics read each second", change: set(func(*settings) {}),
			side: func(e *endpoint) { e.scraped = true }},
		{name: "pool-session", label: "pool.mode: session", change: func(s *stage, c *settings) error {
			c.poolMode = "session"
			c.poolSize = s.options.featureServers()
			return nil
		}},
	}
}

// featureNames returns the words that -features takes.
func featureNames() []string {
	var names []string
	for _, f := range allFeatures() {
		names = append(names, f.name)
	}
	return names
}

// chosenFeatures returns the features of a run: those named, without those
// that need replicas where there are none.
func (o options) chosenFeatures() []feature {
	if !o.wants("features") {
		return nil
	}
	return slices.DeleteFunc(allFeatures(), func(f feature) bool {
		return !slices.Contains(o.features, f.name) || f.replicas && o.replicas == 0
	})
}

// featureServers is how many server connections a side of the features needs
// at most: in session pooling one for each client, old ones perhaps not yet gone.
func (o options) featureServers() int {
	return max(o.serverConns, 2*slices.Max(o.featureClients))
}

// withClientTLS gives the proxy a certificate made for this run.
func withClientTLS(s *stage, c *settings) error {
	certificate, key, err := s.cluster.TLS().Issue("bench")
	c.listenTLS = fmt.Sprintf("certificate: %q, key: %q", certificate, key)
	return err
}

// openFeature starts the proxy with a feature.
func (s *stage) openFeature(ctx context.Context, f feature) (*endpoint, error) {
	c := s.defaults()
	if err := f.change(s, &c); err != nil {
		return nil, err
	}
	e, err := s.proxyEndpoint(f.label, s.options.proxy, "feature-"+f.name, c)
	if err != nil {
		return nil, err
	}
	if f.side != nil {
		f.side(e)
	}
	return e, e.start(ctx)
}

// measureFeatures runs select-only with each feature and with none.
func (m *measurement) measureFeatures(ctx context.Context) (err error) {
	rows, features := m.stage.options.featureRows(), m.stage.options.chosenFeatures()
	if len(rows) == 0 || len(features) == 0 {
		m.progress("features: none for these modes and replicas")
		return nil
	}
	sides := []*endpoint{m.stage.endpoint(proxyName)}
	defer func() {
		for _, e := range sides[1:] {
			err = errors.Join(err, e.stop())
		}
	}()
	for _, f := range features {
		e, err := m.stage.openFeature(ctx, f)
		if e != nil {
			sides = append(sides, e)
		}
		if err != nil {
			return err
		}
	}
	m.features = rounds{}
	return m.inTurns(ctx, m.stage.options.rounds, "features", rows, sides, func(row string, e *endpoint) error {
		return m.runStatements(ctx, m.features, row, e)
	})
}

// featureRows returns the rows of the features: of the modes those two between
// which the others lie.
func (o options) featureRows() []string {
	modes := slices.DeleteFunc(slices.Clone(o.modes), func(mode string) bool { return mode == "extended" })
	return statementRows(modes, o.featureClients)
}

// scraping runs work while somebody reads the metrics page each second, once
// at least.
func scraping(ctx context.Context, admin string, work func() error) error {
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		// Off the whole seconds that runs take, so that their number is certain.
		timer := time.NewTimer(time.Second / 4)
		defer timer.Stop()
		for n := 0; ; n++ {
			last := false
			select {
			case <-stop:
				last = true
			case <-timer.C:
				timer.Reset(time.Second)
			}
			if last && n > 0 {
				ended <- nil
				return
			}
			if err := readMetrics(ctx, admin, io.Discard); err != nil || last {
				ended <- err
				return
			}
		}
	}()
	err := work()
	close(stop)
	return errors.Join(err, <-ended)
}

// readMetrics copies a metrics page.
func readMetrics(ctx context.Context, admin string, to io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the metrics page of %s: %s", admin, response.Status)
	}
	_, err = io.Copy(to, response.Body)
	return err
}

// featureTable holds each feature against the default of the same rounds.
func (m *measurement) featureTable() table {
	var t table
	t.row("mode and clients", "feature", "CPU ms per 1,000", "CPU / default (range)", "tps / default", "p99 / default", "switches", "allocations")
	for _, row := range m.stage.options.featureRows() {
		line := func(label, side string) {
			get := func(figure string) series { return m.features.get(row, side, figure) }
			ratio := func(figure string) series { return m.features.against(row, side, proxyName, figure) }
			t.row(row, label, get("cpu").text(1), ratio("cpu").span(2), ratio("tps").text(2), ratio("p99").text(2),
				get("switches").text(2), get("mallocs").text(2))
		}
		line("none, the default", proxyName)
		for _, f := range m.stage.options.chosenFeatures() {
			line(f.label, f.label)
		}
	}
	return t
}
