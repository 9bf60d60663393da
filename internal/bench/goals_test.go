package main

import (
	"math"
	"slices"
	"testing"
)

func TestGoalReached(t *testing.T) {
	for _, c := range []struct {
		figure float64
		bound  float64
		most   bool
		want   bool
	}{
		{1.05, 1.05, true, true}, {1.054, 1.05, true, true}, {1.056, 1.05, true, false}, {0.5, 1.05, true, true},
		{1.05, 1.05, false, true}, {1.046, 1.05, false, true}, {1.04, 1.05, false, false}, {2, 1.05, false, true},
		{math.NaN(), 1, true, false}, {math.NaN(), 1, false, false},
	} {
		if got := (goal{figure: series{c.figure}, bound: c.bound, most: c.most}).reached(); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// Only what was measured is held against a goal, and each with its own bound.
func TestGoalTable(t *testing.T) {
	m := &measurement{stage: &stage{options: options{replicas: 2, rateClients: []int{32}}}}
	if got := m.goalTable(); len(got) != 1 {
		t.Errorf("nothing measured: %q", got)
	}
	put := func(into *rounds, row, side, figure string, values ...float64) {
		if *into == nil {
			*into = rounds{}
		}
		for _, v := range values {
			into.add(row, side, figure, v)
		}
	}
	put(&m.statements, "simple 8", pgbouncerName, "cpu", 10, 20)
	put(&m.statements, "simple 8", proxyName, "cpu", 11, 20)
	put(&m.statements, "prepared 64", pgbouncerName, "tps", 100)
	put(&m.statements, "prepared 64", proxyName, "tps", 120)
	put(&m.statements, "simple 8", splitName(2), "cpu", 22, 40)
	put(&m.rate, "32", directName, "p99", 100)
	put(&m.rate, "32", proxyName, "p99", 125)
	put(&m.bulk, "SELECT", directName, "speed", 200)
	put(&m.bulk, "SELECT", proxyName, "speed", 190)
	put(&m.bulk, "COPY IN, a row", pgbouncerName, "cpu", 1)
	put(&m.bulk, "COPY IN, a row", proxyName, "cpu", 0.8)
	put(&m.idle, "1000", proxyName, "asked", 0.7)
	put(&m.idle, "200", proxyName, "asked", 0.7)
	put(&m.cold, "1000", proxyName, "all", 2.5)
	want := table{
		{"CPU a statement, simple, 8 clients, / PgBouncer", "at most 1.05", "1.05 (1.00-1.10)", "yes"},
		{"statements a second, prepared, 64 clients, / PgBouncer", "at least 1.25", "1.20", "no"},
		{"CPU a statement, simple, 8 clients, reads split over 2 replicas / not split", "at most 1.10", "2.00 (2.00-2.00)", "no"},
		{"p99 at a fixed rate, 32 clients, / direct", "at most 1.25", "1.25", "yes"},
		{"SELECT, MB/s, / direct", "at least 1.00", "0.95", "no"},
		{"COPY IN, a row, CPU a GB, / PgBouncer", "at most 0.85", "0.80", "yes"},
		{"KiB a client, 1000 idle clients", "at most 0.75", "0.70", "yes"},
		{"seconds until 1000 clients that come at once are answered", "at most 2.00", "2.50", "no"},
	}
	if got := m.goalTable()[1:]; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
	// What the features say of the split comes before what the statements say,
	// and only two replicas are the goal's.
	put(&m.features, "simple 8", proxyName, "cpu", 10)
	put(&m.features, "simple 8", splitLabel, "cpu", 10.5)
	if got := m.splitGoals()[0].figure.text(2); got != "1.05" {
		t.Errorf("the split costs %s", got)
	}
	m.stage.options.replicas = 1
	if got := m.splitGoals(); got != nil {
		t.Errorf("one replica: %v", got)
	}
	// Session pooling is not what the proxy does; the goal says so.
	m.stage.endpoints = []*endpoint{{name: pgbouncerName, preparedDatabase: "x"}}
	if got, want := m.statementGoals()[3].what, "CPU a statement, prepared, 8 clients, / PgBouncer in session pooling"; got != want {
		t.Errorf("got %s", got)
	}
}
