package main

import (
	"context"
	"fmt"
	"strconv"
)

// measureRate asks all sides for the same statements a second, half of what
// the server itself can do. pgbench counts a latency from the moment at which
// the statement was due: a side that falls behind shows it.
func (m *measurement) measureRate(ctx context.Context) error {
	m.rate = rounds{}
	var rows []string
	targets := map[string]float64{}
	for _, n := range m.stage.options.rateClients {
		row := strconv.Itoa(n)
		most, err := m.saturation(ctx, n)
		if err != nil {
			return err
		}
		rows, targets[row] = append(rows, row), most/2
	}
	sides := m.sides(func(e *endpoint) bool { return e.plain })
	return m.inTurns(ctx, m.stage.options.rounds, "rate", rows, sides, func(row string, e *endpoint) error {
		clients, err := strconv.Atoi(row)
		if err != nil {
			return err
		}
		r, _, err := m.loaded(ctx, e, load{mode: "simple", clients: clients, rate: targets[row]})
		if err != nil {
			return err
		}
		m.noteLatency(m.rate, row, e, r)
		m.rate.add(row, e.name, "target", targets[row])
		m.rate.add(row, e.name, "held", r.tps/targets[row])
		return nil
	})
}

// saturation returns the statements a second that the server itself does for
// so many clients that never pause. It is measured once in a run.
func (m *measurement) saturation(ctx context.Context, clients int) (float64, error) {
	if known := m.saturations[clients]; known > 0 {
		return known, nil
	}
	m.progress("saturation of %d clients", clients)
	direct := m.stage.endpoint(directName)
	var seen series
	for range min(m.stage.options.rounds, bigRounds) {
		r, _, err := m.loaded(ctx, direct, load{mode: "simple", clients: clients})
		if err != nil {
			return 0, fmt.Errorf("saturation: %w", err)
		}
		seen = append(seen, r.tps)
	}
	if m.saturations == nil {
		m.saturations = map[int]float64{}
	}
	m.saturations[clients] = seen.median()
	return seen.median(), nil
}

func (m *measurement) noteLatency(into rounds, row string, e *endpoint, r pgbenchResult) {
	into.add(row, e.name, "p50", r.p50)
	into.add(row, e.name, "p99", r.p99)
}

func (m *measurement) rateTable() table {
	var t table
	t.row("clients", "statements a second", "side", "held", "p50 us", "p50 / direct (range)", "p99 us", "p99 / direct (range)")
	for _, n := range m.stage.options.rateClients {
		row := strconv.Itoa(n)
		for _, e := range m.sides(func(e *endpoint) bool { return e.plain }) {
			get := func(figure string) series { return m.rate.get(row, e.name, figure) }
			ratio := func(figure string) series { return m.rate.against(row, e.name, directName, figure) }
			t.row(row, get("target").text(0), e.name, get("held").text(2), get("p50").text(0), ratio("p50").span(2),
				get("p99").text(0), ratio("p99").span(2))
		}
	}
	return t
}
