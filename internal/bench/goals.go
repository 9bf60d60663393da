package main

import (
	"fmt"
	"math"
	"strconv"
)

// goal is a bound on a figure, the median of its rounds.
type goal struct {
	what   string
	figure series
	bound  float64
	most   bool // the figure is to be the bound at most; else at least
}

// reached holds the figure against the bound as it is printed, to two digits.
func (g goal) reached() bool {
	figure := math.Round(g.figure.median()*100) / 100
	if g.most {
		return figure <= g.bound
	}
	return figure >= g.bound
}

func (g goal) cells() []string {
	sign, verdict := "at least", "no"
	if g.most {
		sign = "at most"
	}
	if g.reached() {
		verdict = "yes"
	}
	return []string{g.what, fmt.Sprintf("%s %.2f", sign, g.bound), g.figure.span(2), verdict}
}

// goalTable lists the goals that this run measured; empty but for its heads
// when it measured none.
func (m *measurement) goalTable() table {
	var t table
	t.row("what", "goal", "figure (range)", "reached")
	for _, goals := range [][]goal{m.statementGoals(), m.splitGoals(), m.rateGoals(), m.bulkGoals(), m.keyedGoals(), m.moveGoals(), m.clientGoals()} {
		for _, g := range goals {
			if !math.IsNaN(g.figure.median()) {
				t.row(g.cells()...)
			}
		}
	}
	return t
}

// statementGoals holds the proxy against PgBouncer, statement for statement.
func (m *measurement) statementGoals() []goal {
	var cpu, tps []goal
	for _, of := range []struct {
		mode     string
		clients  int
		cpu, tps float64
	}{
		{"simple", 8, 1.05, 1.05}, {"simple", 32, 0.95, 1.05}, {"simple", 64, 0.95, 1.05},
		{"prepared", 8, 0.85, 1.25}, {"prepared", 32, 0.85, 1.25}, {"prepared", 64, 0.85, 1.25},
	} {
		row, other := statementRow(of.mode, of.clients), pgbouncerName
		if of.mode == "prepared" && m.preparedNote() != "" {
			other += " in session pooling"
		}
		ratio := func(figure string) series { return m.statements.against(row, proxyName, pgbouncerName, figure) }
		cpu = append(cpu, goal{fmt.Sprintf("CPU a statement, %s, %d clients, / %s", of.mode, of.clients, other), ratio("cpu"), of.cpu, true})
		tps = append(tps, goal{fmt.Sprintf("statements a second, %s, %d clients, / %s", of.mode, of.clients, other), ratio("tps"), of.tps, false})
	}
	return append(cpu, tps...)
}

// splitGoals holds the read split over two replicas against itself without.
func (m *measurement) splitGoals() []goal {
	if m.stage.options.replicas != 2 {
		return nil
	}
	var goals []goal
	for _, mode := range []string{"simple", "prepared"} {
		row := statementRow(mode, 8)
		figure := m.features.against(row, splitLabel, proxyName, "cpu")
		if math.IsNaN(figure.median()) {
			figure = m.statements.against(row, splitName(2), proxyName, "cpu")
		}
		goals = append(goals, goal{fmt.Sprintf("CPU a statement, %s, 8 clients, reads split over 2 replicas / not split", mode), figure, 1.10, true})
	}
	return goals
}

// rateGoals holds latency at a fixed rate against the server's own.
func (m *measurement) rateGoals() []goal {
	var goals []goal
	for _, n := range m.stage.options.rateClients {
		goals = append(goals, goal{fmt.Sprintf("p99 at a fixed rate, %d clients, / direct", n),
			m.rate.against(strconv.Itoa(n), proxyName, directName, "p99"), 1.25, true})
	}
	return goals
}

func (m *measurement) bulkGoals() []goal {
	cpu := func(row string) series { return m.bulk.against(row, proxyName, pgbouncerName, "cpu") }
	return []goal{
		{"SELECT, CPU a GB, / PgBouncer", cpu("SELECT"), 0.8, true},
		{"SELECT, MB/s, / direct", m.bulk.against("SELECT", proxyName, directName, "speed"), 1.0, false},
		{"COPY IN, 8 KiB, CPU a GB, / PgBouncer", cpu("COPY IN, 8 KiB"), 0.75, true},
		{"COPY IN, a row, CPU a GB, / PgBouncer", cpu("COPY IN, a row"), 0.85, true},
	}
}

// clientGoals are about many clients. Idle ones have asked once.
func (m *measurement) clientGoals() []goal {
	var goals []goal
	for _, n := range []int{1000, 5000} {
		goals = append(goals, goal{fmt.Sprintf("KiB a client, %d idle clients", n),
			m.idle.get(strconv.Itoa(n), proxyName, "asked"), 0.75, true})
	}
	return append(goals, goal{"seconds until 1000 clients that come at once are answered", m.cold.get("1000", proxyName, "all"), 2, true})
}
