package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/wire"
)

// stormClients are the established sessions. They ask for a quarter of what
// the server itself can do: the storm's own clients need the machine too.
const stormClients = 8

// The rows of the storm, in the order of a round.
const (
	quietRow = "quiet"
	stormRow = "storm"
)

// measureStorm holds sessions under many logins against sessions under none.
func (m *measurement) measureStorm(ctx context.Context) error {
	most, err := m.saturation(ctx, stormClients)
	if err != nil {
		return err
	}
	m.storm = rounds{}
	l := load{mode: "simple", clients: stormClients, rate: most / 4}
	return m.inTurns(ctx, m.stage.options.rounds, "storm", []string{quietRow, stormRow}, m.poolers(), func(row string, e *endpoint) error {
		if row == quietRow {
			r, used, err := m.loaded(ctx, e, l)
			if err != nil {
				return err
			}
			m.noteLatency(m.storm, row, e, r)
			m.storm.add(row, e.name, "held", r.tps/l.rate)
			m.storm.add(row, e.name, "cpu", used.cpu.Seconds()*1000/float64(r.statements))
			return nil
		}
		return m.stormOnce(ctx, e, l)
	})
}

// stormOnce runs the sessions under logins.
func (m *measurement) stormOnce(ctx context.Context, e *endpoint, l load) error {
	var r pgbenchResult
	var logins logins
	used, err := e.during(ctx, func() error {
		stop := make(chan struct{})
		var group errgroup.Group
		group.Go(func() (err error) {
			logins, err = m.stage.logIns(ctx, e, m.stage.options.storm, stop)
			return err
		})
		var err error
		r, err = m.stage.pgbench(ctx, e, l)
		close(stop)
		return errors.Join(err, group.Wait())
	})
	if err != nil {
		return err
	}
	add := func(figure string, v float64) { m.storm.add(stormRow, e.name, figure, v) }
	m.noteLatency(m.storm, stormRow, e, r)
	add("held", r.tps/l.rate)
	add("logins", float64(len(logins.each))/logins.took.Seconds())
	add("login", logins.each.median())
	quiet := m.storm.get(quietRow, e.name, "cpu")
	add("cpu", cpuOfALogin(used.cpu, quiet[len(quiet)-1], r.statements, len(logins.each)))
	return nil
}

// cpuOfALogin returns milliseconds: what is left of all CPU when each
// statement is taken to cost what it did in the same round without logins.
func cpuOfALogin(all time.Duration, statement float64, statements, logins int) float64 {
	return (all.Seconds()*1000 - statement*float64(statements)) / float64(logins)
}

// logins is what a storm was.
type logins struct {
	each series        // milliseconds from the dial to being ready for a query
	took time.Duration // all of it
}

// logIns lets so many clients a second come, log in and go again, until stop
// is closed; one at least. Those that are late because the machine or the
// pooler is are made up for, as far as a second's worth under way at a time.
func (s *stage) logIns(ctx context.Context, e *endpoint, rate int, stop <-chan struct{}) (logins, error) {
	var done logins
	var mu sync.Mutex
	one := func(ctx context.Context) error {
		begun := time.Now()
		c, err := s.login.dial(ctx, e.port, database)
		if err != nil {
			return err
		}
		took := time.Since(begun)
		err = c.send(wire.AppendEmpty(nil, wire.MsgTerminate))
		c.close()
		mu.Lock()
		defer mu.Unlock()
		done.each = append(done.each, took.Seconds()*1000)
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, rate))
	tick := time.NewTicker(min(time.Second/time.Duration(rate), 50*time.Millisecond))
	defer tick.Stop()
	begun, started := time.Now(), 0
	for going := true; going; {
		for started < due(time.Since(begun), rate) {
			group.Go(func() error { return one(ctx) })
			started++
		}
		select {
		case <-stop:
			going = false
		case <-ctx.Done():
			going = false
		case <-tick.C:
		}
	}
	err := group.Wait()
	done.took = time.Since(begun)
	return done, err
}

// due returns how many events of so many a second have had their moment, the
// first of them at once.
func due(since time.Duration, rate int) int {
	return 1 + int(since.Seconds()*float64(rate))
}

func (m *measurement) stormTable() table {
	var t table
	t.row("side", "logins a second", "held", "p50 us", "under logins", "ratio (range)", "p99 us", "under logins", "ratio (range)",
		"p50 of a login, ms", "CPU ms a login", "CPU / PgB (range)")
	for _, e := range m.poolers() {
		quiet := func(figure string) series { return m.storm.get(quietRow, e.name, figure) }
		storm := func(figure string) series { return m.storm.get(stormRow, e.name, figure) }
		t.row(e.name, storm("logins").text(0), storm("held").text(2),
			quiet("p50").text(0), storm("p50").text(0), storm("p50").over(quiet("p50")).span(2),
			quiet("p99").text(0), storm("p99").text(0), storm("p99").over(quiet("p99")).span(2),
			storm("login").text(1), storm("cpu").text(2), m.storm.against(stormRow, e.name, pgbouncerName, "cpu").span(2))
	}
	return t
}
