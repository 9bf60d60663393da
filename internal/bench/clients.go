package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// loginsAtATime bounds the logins under way while idle clients gather.
const loginsAtATime = 32

// bigRounds bounds the rounds of the parts that start a program each time.
const bigRounds = 3

// poolers are the sides with a program, one server behind each.
func (m *measurement) poolers() []*endpoint {
	return m.sides(func(e *endpoint) bool { return e.plain && e.command != nil })
}

// measureCold lets many clients come at once to a pooler that has just begun.
func (m *measurement) measureCold(ctx context.Context) error {
	m.cold = rounds{}
	row := strconv.Itoa(m.stage.options.cold)
	return m.inTurns(ctx, m.stage.options.rounds, "cold", []string{row}, m.poolers(), func(row string, e *endpoint) error {
		if err := e.restart(ctx); err != nil {
			return err
		}
		var answers series
		used, err := e.during(ctx, func() (err error) {
			answers, err = m.stage.rush(ctx, e, m.stage.options.cold)
			return err
		})
		if err != nil {
			return err
		}
		m.cold.add(row, e.name, "half", answers.quantile(0.5))
		m.cold.add(row, e.name, "all", answers.quantile(1))
		m.cold.add(row, e.name, "cpu", used.cpu.Seconds()*1000/float64(len(answers)))
		return nil
	})
}

// rush connects count clients at once and returns the seconds after which each
// had the answer to its first statement. All stay until the last has it.
func (s *stage) rush(ctx context.Context, e *endpoint, count int) (series, error) {
	answers := make(series, count)
	clients := make([]*client, count)
	defer closeAll(clients)
	start := make(chan struct{})
	var begun time.Time
	var group errgroup.Group
	for i := range count {
		group.Go(func() error {
			<-start
			c, err := s.login.dial(ctx, e.port, database)
			if err != nil {
				return err
			}
			clients[i] = c
			err = c.ask(selectOne, selectOneTag)
			answers[i] = time.Since(begun).Seconds()
			return err
		})
	}
	begun = time.Now()
	close(start)
	return answers, group.Wait()
}

// The least statement, and the tag of its answer.
const (
	selectOne    = "SELECT 1"
	selectOneTag = "SELECT 1"
)

// measureIdle reads the resident memory of poolers with many idle clients.
func (m *measurement) measureIdle(ctx context.Context) error {
	m.idle = rounds{}
	var rows []string
	for _, n := range m.stage.options.idle {
		rows = append(rows, strconv.Itoa(n))
	}
	count := min(m.stage.options.rounds, bigRounds)
	return m.inTurns(ctx, count, "idle", rows, m.poolers(), func(row string, e *endpoint) error {
		n, err := strconv.Atoi(row)
		if err != nil {
			return err
		}
		return m.idleOnce(ctx, e, row, n)
	})
}

// idleOnce measures a fresh process before, with n clients that have only
// logged in, and after each of them has asked once.
func (m *measurement) idleOnce(ctx context.Context, e *endpoint, row string, n int) error {
	if err := e.restart(ctx); err != nil {
		return err
	}
	empty, err := m.settledMemory(ctx, e)
	if err != nil {
		return err
	}
	clients, err := m.stage.gather(ctx, e, n)
	defer closeAll(clients)
	if err != nil {
		return fmt.Errorf("%w: %s", err, e.process.tail())
	}
	there, err := m.settledMemory(ctx, e)
	if err != nil {
		return err
	}
	for _, c := range clients {
		if err := c.ask(selectOne, selectOneTag); err != nil {
			return err
		}
	}
	asked, err := m.settledMemory(ctx, e)
	if err != nil {
		return err
	}
	m.idle.add(row, e.name, "start", empty/1024)
	m.idle.add(row, e.name, "each", (there-empty)/float64(n))
	m.idle.add(row, e.name, "asked", (asked-empty)/float64(n))
	return nil
}

// settledMemory waits and returns the resident memory in KiB.
func (m *measurement) settledMemory(ctx context.Context, e *endpoint) (float64, error) {
	select {
	case <-ctx.Done():
		return math.NaN(), ctx.Err()
	case <-time.After(m.stage.options.settle):
	}
	return e.process.residentKiB()
}

// gather logs count clients in, some at a time. What it returns with an error
// is to be closed too.
func (s *stage) gather(ctx context.Context, e *endpoint, count int) ([]*client, error) {
	clients := make([]*client, count)
	var group errgroup.Group
	group.SetLimit(loginsAtATime)
	for i := range count {
		group.Go(func() (err error) {
			clients[i], err = s.login.dial(ctx, e.port, database)
			return err
		})
	}
	return clients, group.Wait()
}

func closeAll(clients []*client) {
	for _, c := range clients {
		if c != nil {
			c.close()
		}
	}
}
