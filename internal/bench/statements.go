package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measurement gathers what the report prints.
type measurement struct {
	begun      time.Time
	stage      *stage
	progress   func(format string, args ...any)
	statements rounds // rows are those of statementRow
	features   rounds // the same
	rate       rounds // rows are numbers of clients
	storm      rounds // rows are quietRow and stormRow
	bulk       rounds
	keyed      rounds // rows are those of keyedRow
	keyedCopy  rounds
	scatter    rounds // rows are names of scatterStatements
	transfers  rounds // rows are acrossRow and withinRow
	tpcb       rounds // rows are those of tpcbRows
	totals     rounds // rows are those of totalRows
	moves      rounds // the row is movedTable, sides are moveWays
	felt       rounds // rows are those of feltRows, sides are quietMoves and underMoves
	moved      int    // rows that moved
	cold       rounds
	idle       rounds // rows are numbers of clients
	// saturations holds, by numbers of clients, what the server itself can do.
	saturations map[int]float64
	loadBefore  float64 // load average of the last minute, before anything began
	loads       series  // and at the beginning of each round
}

// inTurns runs one round after the other, each over all rows and, in a row,
// over all sides; every second round goes backwards.
func (m *measurement) inTurns(ctx context.Context, count int, what string, rows []string, sides []*endpoint,
	one func(row string, e *endpoint) error) error {
	for round := range count {
		m.loads = append(m.loads, loadAverage())
		m.progress("%s: round %d of %d", what, round+1, count)
		order := slices.Clone(sides)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, row := range rows {
			for _, e := range order {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := one(row, e); err != nil {
					return fmt.Errorf("%s, %s: %w", e.name, row, err)
				}
			}
		}
	}
	return nil
}

// sides returns the endpoints that a part compares.
func (m *measurement) sides(want func(*endpoint) bool) []*endpoint {
	var sides []*endpoint
	for _, e := range m.stage.endpoints {
		if want(e) {
			sides = append(sides, e)
		}
	}
	return sides
}

// load is what pgbench is to do.
type load struct {
	mode    string
	clients int
	rate    float64 // statements a second of all clients; 0 for as many as it can
	script  string  // file of pgbench's commands; "" for select-only
	// threads is pgbench's; 0 for one. One that has several clients waits for each PREPARE, and for ever when that waits for a server connection
	// which another of its clients holds.
	threads int
}

// statementRow names a row of a table of statements.
func statementRow(mode string, clients int) string { return fmt.Sprintf("%s %d", mode, clients) }

// statementRows names them all.
func statementRows(modes []string, clients []int) []string {
	var rows []string
	for _, mode := range modes {
		for _, n := range clients {
			rows = append(rows, statementRow(mode, n))
		}
	}
	return rows
}

// loadOf is what a row of a table of statements asks for.
func loadOf(row string) (load, error) {
	mode, number, _ := strings.Cut(row, " ")
	clients, err := strconv.Atoi(number)
	return load{mode: mode, clients: clients}, err
}

// measureStatements runs pgbench's select-only script.
func (m *measurement) measureStatements(ctx context.Context) error {
	m.statements = rounds{}
	rows := statementRows(m.stage.options.modes, m.stage.options.clients)
	sides := m.sides(func(*endpoint) bool { return true })
	return m.inTurns(ctx, m.stage.options.rounds, "statements", rows, sides, func(row string, e *endpoint) error {
		return m.runStatements(ctx, m.statements, row, e)
	})
}

// runStatements measures a row of a table of statements for one side.
func (m *measurement) runStatements(ctx context.Context, into rounds, row string, e *endpoint) error {
	l, err := loadOf(row)
	if err != nil {
		return err
	}
	r, used, err := m.loaded(ctx, e, l)
	if err != nil {
		return err
	}
	noteStatements(into, row, e, r, used)
	return nil
}

// loaded runs pgbench and returns what the side's program used meanwhile.
func (m *measurement) loaded(ctx context.Context, e *endpoint, l load) (r pgbenchResult, used usage, err error) {
	work := func() (err error) {
		r, err = m.stage.pgbench(ctx, e, l)
		return err
	}
	used, err = e.during(ctx, func() error {
		if e.scraped {
			return scraping(ctx, e.admin, work)
		}
		return work()
	})
	return r, used, err
}

func noteStatements(into rounds, row string, e *endpoint, r pgbenchResult, used usage) {
	each := func(total float64) float64 {
		if e.process == nil {
			return math.NaN()
		}
		return total / float64(r.statements)
	}
	add := func(figure string, v float64) { into.add(row, e.name, figure, v) }
	add("tps", r.tps)
	add("p50", r.p50)
	add("p99", r.p99)
	add("cpu", each(float64(used.cpu.Nanoseconds()))/1000) // us a statement, ms a thousand
	add("switches", each(float64(used.switches)))
	if e.admin != "" {
		add("mallocs", each(used.mallocs))
	}
}

// during returns what the endpoint's program uses while work runs. Asking for
// the allocations allocates; that is measured beforehand and taken off.
func (e *endpoint) during(ctx context.Context, work func() error) (usage, error) {
	if e.process == nil {
		return usage{}, work()
	}
	var before, page float64
	if e.admin != "" {
		first, err := mallocs(ctx, e.admin)
		if err != nil {
			return usage{}, err
		}
		if before, err = mallocs(ctx, e.admin); err != nil {
			return usage{}, err
		}
		page = before - first
	}
	begin, err := e.process.usage()
	if err != nil {
		return usage{}, err
	}
	if err := work(); err != nil {
		return usage{}, fmt.Errorf("%w: %s", err, e.process.tail())
	}
	end, err := e.process.usage()
	if err != nil {
		return usage{}, err
	}
	used := end.since(begin)
	if e.admin != "" {
		after, err := mallocs(ctx, e.admin)
		if err != nil {
			return usage{}, err
		}
		used.mallocs = max(0, after-before-page)
	}
	return used, nil
}

// args says the load to pgbench. It counts whole seconds: for less there is a
// number of statements, a thousand a second for each client where the load has
// no rate.
func (l load) args(each time.Duration) []string {
	what := []string{"-S"}
	if l.script != "" {
		what = []string{"-f", l.script}
	}
	args := append([]string{"-n"}, what...)
	args = append(args, "-j", strconv.Itoa(max(l.threads, 1)), "-M", l.mode, "-c", strconv.Itoa(l.clients))
	count := each.Seconds() * 1000
	if l.rate > 0 {
		args = append(args, "-R", strconv.FormatFloat(l.rate, 'f', 3, 64))
		count = each.Seconds() * l.rate / float64(l.clients)
	} else {
		// At a fixed rate there are few enough to log them all.
		args = append(args, "--sampling-rate=0.2")
	}
	if each < time.Second {
		return append(args, "-t", strconv.Itoa(max(1, int(count))))
	}
	return append(args, "-T", strconv.Itoa(int(math.Ceil(each.Seconds()))))
}

// pgbenchResult is what one run of pgbench says.
type pgbenchResult struct {
	statements int
	tps        float64 // without the time that connecting took
	p50, p99   float64 // microseconds
}

// pgbench runs a load against an endpoint.
func (s *stage) pgbench(ctx context.Context, e *endpoint, l load) (pgbenchResult, error) {
	name, sslmode := e.databaseName(), "disable"
	if l.mode == "prepared" && e.preparedDatabase != "" {
		name = e.preparedDatabase
	}
	if e.sslmode != "" {
		sslmode = e.sslmode
	}
	dir, err := os.MkdirTemp(s.dir, "pgbench-")
	if err != nil {
		return pgbenchResult{}, err
	}
	defer os.RemoveAll(dir)
	args := append(l.args(s.options.each), "-l", "--log-prefix="+filepath.Join(dir, "log"),
		fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=%s", e.port, pgbenchUser, name, sslmode))
	cmd := exec.CommandContext(ctx, s.cluster.Binaries().Path("pgbench"), args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return pgbenchResult{}, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	r, err := parsePgbench(out)
	if err != nil {
		return r, err
	}
	logs, err := filepath.Glob(filepath.Join(dir, "log*"))
	if err != nil {
		return r, err
	}
	var latencies series
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return r, err
		}
		if latencies, err = appendLatencies(latencies, text); err != nil {
			return r, err
		}
	}
	r.p50, r.p99 = latencies.quantile(0.5), latencies.quantile(0.99)
	return r, nil
}

// parsePgbench reads pgbench's summary; a failed transaction is an error.
func parsePgbench(out []byte) (r pgbenchResult, err error) {
	find := func(pattern string) (float64, error) {
		found := regexp.MustCompile(pattern).FindSubmatch(out)
		if found == nil {
			return 0, fmt.Errorf("pgbench printed nothing like %q: %s", pattern, out)
		}
		return strconv.ParseFloat(string(found[1]), 64)
	}
	count, err := find(`transactions actually processed: (\d+)`)
	if err != nil {
		return r, err
	}
	if failed, err := find(`failed transactions: (\d+)`); err == nil && failed > 0 || count == 0 {
		return r, fmt.Errorf("pgbench: statements failed, or none ran: %s", out)
	}
	if r.tps, err = find(`tps = ([\d.]+) \((?:without|excluding)`); err != nil {
		return r, err
	}
	r.statements = int(count)
	return r, nil
}

// appendLatencies reads the lines of pgbench's log: client, number, latency in
// microseconds, and more.
func appendLatencies(to series, log []byte) (series, error) {
	for line := range bytes.Lines(log) {
		fields := bytes.Fields(line)
		if len(fields) < 3 {
			return nil, errors.New("a line of pgbench's log has too few fields")
		}
		us, err := strconv.ParseFloat(string(fields[2]), 64)
		if err != nil {
			return nil, fmt.Errorf("pgbench's log: %w", err)
		}
		to = append(to, us)
	}
	return to, nil
}

// quantile returns the q-th quantile, NaN of nothing.
func (s series) quantile(q float64) float64 {
	k := s.known()
	if len(k) == 0 {
		return math.NaN()
	}
	return k[min(len(k)-1, int(q*float64(len(k))))]
}

// loadAverage returns the machine's load of the last minute.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return math.NaN()
	}
	load, err := strconv.ParseFloat(strings.Fields(string(text) + " ?")[0], 64)
	if err != nil {
		return math.NaN()
	}
	return load
}
