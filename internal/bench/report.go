package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// table is rows of cells, the first of them the heads.
type table [][]string

func (t *table) row(cells ...string) { *t = append(*t, cells) }

// markdown writes the table so that it reads well as plain text too.
func (t table) markdown() string {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	for n, row := range t {
		for i, cell := range row {
			fmt.Fprintf(&b, "| %-*s ", widths[i], cell)
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range widths {
				b.WriteString("| " + strings.Repeat("-", w) + " ")
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}

// report writes what was measured, with what it takes to judge it.
func (m *measurement) report() string {
	var b strings.Builder
	b.WriteString(m.circumstances())
	if m.statements != nil {
		fmt.Fprintf(&b, "\n### Statements\n\n%s", m.statementTable().markdown())
		if note := m.preparedNote(); note != "" {
			b.WriteString("\n" + note)
		}
	}
	if m.features != nil {
		fmt.Fprintf(&b, "\n### What features cost\n\n%s", m.featureTable().markdown())
	}
	if m.rate != nil {
		fmt.Fprintf(&b, "\n### Latency at a fixed rate\n\n%s", m.rateTable().markdown())
	}
	if m.storm != nil {
		fmt.Fprintf(&b, "\n### Sessions under logins\n\n%s", m.stormTable().markdown())
	}
	if m.bulk != nil {
		fmt.Fprintf(&b, "\n### Large results and COPY\n\n%s", m.bulkTable().markdown())
	}
	if m.keyed != nil {
		fmt.Fprintf(&b, "\n### Keyed statements\n\n%s", m.keyedTable().markdown())
	}
	if m.keyedCopy != nil {
		fmt.Fprintf(&b, "\n### COPY into a keyed table\n\n%s", m.keyedCopyTable().markdown())
	}
	if m.scatter != nil {
		fmt.Fprintf(&b, "\n### Queries over several shards\n\n%s", m.scatterTable().markdown())
	}
	if m.transfers != nil {
		fmt.Fprintf(&b, "\n### Transactions over two shards\n\n%s", m.transferTable().markdown())
		fmt.Fprintf(&b, "\n### TPC-B, each transaction on one shard\n\n%s", m.tpcbTable().markdown())
		fmt.Fprintf(&b, "\n### Totals under %d transfers a second\n\n%s", transfersRate, m.totalTable().markdown())
	}
	if m.moves != nil {
		fmt.Fprintf(&b, "\n### Moving slots\n\n%s", m.moveTable().markdown())
		fmt.Fprintf(&b, "\n### What clients feel of it, at %d statements a second\n\n%s", feltRate, m.feltTable().markdown())
	}
	if m.cold != nil {
		fmt.Fprintf(&b, "\n### Clients that come at once\n\n%s", m.coldTable().markdown())
	}
	if m.idle != nil {
		fmt.Fprintf(&b, "\n### Memory of idle clients\n\n%s", m.idleTable().markdown())
	}
	if m.stage.options.before != "" && (m.statements != nil || m.bulk != nil) {
		fmt.Fprintf(&b, "\n### Against the earlier build\n\n%s", m.beforeTable().markdown())
	}
	if goals := m.goalTable(); len(goals) > 1 {
		fmt.Fprintf(&b, "\n### Goals\n\n%s", goals.markdown())
	}
	return b.String()
}

// circumstances says when, where and with what.
func (m *measurement) circumstances() string {
	o := m.stage.options
	loads := m.loads.known()
	load := "unknown"
	if len(loads) > 0 {
		load = fmt.Sprintf("%.1f before, %.1f to %.1f during the run", m.loadBefore, loads[0], loads[len(loads)-1])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "- Date: %s\n", m.begun.UTC().Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(&b, "- Machine: %s, %d cores, Linux %s; load average %s\n", cpuModel(), runtime.NumCPU(), kernelNumber(oneLine("uname", "-r")), load)
	fmt.Fprintf(&b, "- Versions: %s, PostgreSQL %s, PgBouncer %s, %s\n",
		oneLine(o.proxy, "version"), m.stage.cluster.Binaries().Version, m.stage.pgbouncer, runtime.Version())
	fmt.Fprintf(&b, "- Rounds: %d (idle clients: %d) of %s a side; pgbench scale %d; %d server connections\n",
		o.rounds, min(o.rounds, bigRounds), o.each, o.scale, o.serverConns)
	return b.String()
}

func (m *measurement) statementTable() table {
	var t table
	t.row("mode", "clients", "side", "tps / direct", "tps / PgB", "p50 / PgB", "p99 / PgB",
		"CPU ms per 1,000", "CPU / PgB (range)", "switches", "allocations")
	for _, mode := range m.stage.options.modes {
		for _, clients := range m.stage.options.clients {
			row := statementRow(mode, clients)
			for _, e := range m.stage.endpoints {
				ratio := func(figure string) series { return m.statements.against(row, e.name, pgbouncerName, figure) }
				t.row(mode, fmt.Sprint(clients), e.name, m.statements.against(row, e.name, directName, "tps").text(2),
					ratio("tps").text(2), ratio("p50").text(2), ratio("p99").text(2),
					m.statements.get(row, e.name, "cpu").text(1), ratio("cpu").span(2),
					m.statements.get(row, e.name, "switches").text(2), m.statements.get(row, e.name, "mallocs").text(2))
			}
		}
	}
	return t
}

// preparedNote says how this PgBouncer ran prepared statements.
func (m *measurement) preparedNote() string {
	if e := m.stage.endpoint(pgbouncerName); e == nil || e.preparedDatabase == "" {
		return ""
	}
	return fmt.Sprintf("PgBouncer %s cannot pool clients that use prepared statements (from 1.21 on it can). Its rows of that mode are session\n"+
		"pooling: a server connection for each client, and no statement ever prepared again or renamed.\n", m.stage.pgbouncer)
}

func (m *measurement) bulkTable() table {
	var t table
	t.row("what", "side", "MB/s", "MB/s / direct", "MB/s / PgB", "CPU s per GB", "CPU / PgB (range)")
	for _, row := range bulkKinds() {
		for _, e := range m.sides(func(e *endpoint) bool { return e.plain }) {
			t.row(row, e.name, m.bulk.get(row, e.name, "speed").text(0), m.bulk.against(row, e.name, directName, "speed").text(2),
				m.bulk.against(row, e.name, pgbouncerName, "speed").text(2), m.bulk.get(row, e.name, "cpu").text(2),
				m.bulk.against(row, e.name, pgbouncerName, "cpu").span(2))
		}
	}
	return t
}

func (m *measurement) coldTable() table {
	var t table
	t.row("clients", "side", "half answered, s", "all answered, s", "all / PgB (range)", "CPU ms a client", "CPU / PgB (range)")
	row := fmt.Sprint(m.stage.options.cold)
	for _, e := range m.poolers() {
		t.row(row, e.name, m.cold.get(row, e.name, "half").text(2), m.cold.get(row, e.name, "all").text(2),
			m.cold.against(row, e.name, pgbouncerName, "all").span(2), m.cold.get(row, e.name, "cpu").text(2),
			m.cold.against(row, e.name, pgbouncerName, "cpu").span(2))
	}
	return t
}

func (m *measurement) idleTable() table {
	var t table
	t.row("clients", "side", "MiB at start", "KiB a client", "KiB a client, after a statement each", "that / PgB (range)")
	for _, n := range m.stage.options.idle {
		row := fmt.Sprint(n)
		for _, e := range m.poolers() {
			t.row(row, e.name, m.idle.get(row, e.name, "start").text(1), m.idle.get(row, e.name, "each").text(2),
				m.idle.get(row, e.name, "asked").text(2), m.idle.against(row, e.name, pgbouncerName, "asked").span(2))
		}
	}
	return t
}

// beforeTable compares the proxy with an earlier build of it.
func (m *measurement) beforeTable() table {
	var t table
	t.row("what", "throughput / before", "p99 / before", "CPU / before (range)", "switches / before", "allocations before", "now")
	line := func(of rounds, row, throughput string) {
		ratio := func(figure string) series { return of.against(row, proxyName, beforeName, figure) }
		t.row(row, ratio(throughput).text(2), ratio("p99").text(2), ratio("cpu").span(2), ratio("switches").text(2),
			of.get(row, beforeName, "mallocs").text(2), of.get(row, proxyName, "mallocs").text(2))
	}
	if m.statements != nil {
		for _, mode := range m.stage.options.modes {
			for _, clients := range m.stage.options.clients {
				line(m.statements, statementRow(mode, clients), "tps")
			}
		}
	}
	if m.bulk != nil {
		for _, row := range bulkKinds() {
			line(m.bulk, row, "speed")
		}
	}
	return t
}

// cpuModel returns the processor's name.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// The lines of the document between which the tables stand.
const (
	firstLine = "<!-- what follows is written by \"make bench\" -->"
	lastLine  = "<!-- what precedes is written by \"make bench\" -->"
)

// writeBetween replaces what stands between the two lines of a document.
func writeBetween(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	document, err := replaceBetween(string(old), text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(document), 0o644)
}

func replaceBetween(document, text string) (string, error) {
	before, rest, found := strings.Cut(document, firstLine)
	if !found {
		return "", fmt.Errorf("no line %s", firstLine)
	}
	_, after, found := strings.Cut(rest, lastLine)
	if !found {
		return "", fmt.Errorf("no line %s behind %s", lastLine, firstLine)
	}
	return before + firstLine + "\n\n" + strings.Trim(text, "\n") + "\n\n" + lastLine + after, nil
}

// kernelNumber is the number at the beginning of a kernel's release: what
// follows names somebody's build of it.
func kernelNumber(release string) string {
	end := strings.IndexFunc(release, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(release)
	}
	return strings.TrimRight(release[:end], ".")
}
