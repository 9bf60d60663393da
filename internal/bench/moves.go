package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
)

// The ways in which rows get from one server to another.
const (
	moveWay    = "shardproxy rebalance"
	pipeWay    = "pg_dump, psql"
	logicalWay = "logical replication"
)

func moveWays() []string { return []string{moveWay, pipeWay, logicalWay} }

// What clients do while slots move, and whether these do.
const (
	quietMoves = "no move"
	underMoves = "slots move"
)

func feltRows() []string { return []string{"select", "update"} }

// The tables: one that is sharded, and one that has the rows that move, for the other ways.
const (
	movedTable  = "moved"
	pipedTable  = "piped"
	movedRow    = "(id bigint PRIMARY KEY, n int NOT NULL, v text NOT NULL)"
	movedRules  = movedTable + ": {key: id}, " + pipedTable + ": {single: true}"
	movedBytes  = 100 // of v
	feltRate    = 2000
	feltClients = 8
)

// moveTables makes the tables on a server, for the roles that use them.
func moveTables(roles string) []string {
	return []string{
		"CREATE TABLE " + movedTable + " " + movedRow,
		"CREATE TABLE " + pipedTable + " " + movedRow,
		fmt.Sprintf("GRANT ALL ON %s, %s TO %s", movedTable, pipedTable, roles),
	}
}

// moveStage is what moves need besides the shards.
type moveStage struct {
	*shardStage
	slots   []string // those that move
	rows    int      // in them
	at      string   // the shard that has them
	scripts map[string]string
}

// measureMoves compares moves of slots with other ways to carry the same rows, and says what clients feel of them.
func (m *measurement) measureMoves(ctx context.Context) (err error) {
	shards := &shardStage{stage: m.stage, moves: true}
	defer func() { err = errors.Join(err, shards.close(ctx)) }()
	if err := shards.open(ctx); err != nil {
		return fmt.Errorf("make the shards: %w", err)
	}
	t := &moveStage{shardStage: shards, at: "s0"}
	if err := t.open(ctx); err != nil {
		return fmt.Errorf("fill the table that moves: %w", err)
	}
	m.moves, m.felt, m.moved = rounds{}, rounds{}, t.rows
	var sides []*endpoint
	for _, way := range moveWays() {
		sides = append(sides, &endpoint{name: way})
	}
	err = m.inTurns(ctx, m.stage.options.rounds, "moves", []string{movedTable}, sides, func(row string, e *endpoint) error {
		return m.runWay(ctx, t, e.name)
	})
	if err != nil {
		return err
	}
	return m.inTurns(ctx, m.stage.options.rounds, "moves, felt", feltRows(), []*endpoint{{name: quietMoves}, {name: underMoves}}, func(row string, e *endpoint) error {
		return m.runFelt(ctx, t, row, e.name)
	})
}

// open fills the tables, and chooses half of the first shard's slots.
func (t *moveStage) open(ctx context.Context) error {
	n := t.accounts()
	t.scripts = map[string]string{}
	for kind, sql := range map[string]string{"select": "SELECT n FROM " + movedTable + " WHERE id = :id", "update": "UPDATE " + movedTable + " SET n = n + 1 WHERE id = :id"} {
		t.scripts[kind] = filepath.Join(t.stage.dir, "felt-"+kind+".sql")
		if err := os.WriteFile(t.scripts[kind], fmt.Appendf(nil, "\\set id random(1, %d)\n%s;\n", n, sql), 0o600); err != nil {
			return err
		}
	}
	c, err := t.stage.login.dial(ctx, t.side.port, shardsDatabase)
	if err != nil {
		return err
	}
	defer c.close()
	text := strings.Repeat("x", movedBytes)
	frames := framesOf(n, 8<<10, func(to []byte, i int) []byte { return fmt.Appendf(to, "%d\t0\t%s\n", i, text) })
	if err := c.copyIn("COPY "+movedTable+" FROM STDIN", frames, fmt.Sprintf("COPY %d", n)); err != nil {
		return err
	}
	rows, err := t.split[0].Query(ctx, "SELECT slot::text FROM shardproxy.slots WHERE shard = 's0' AND slot % 2 = 0 ORDER BY slot")
	if err != nil {
		return err
	}
	if t.slots, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return err
	}
	const slot = "(hashint8extended(id, 0) & 4095)::int"
	err = execute(ctx, t.split[0], "INSERT INTO "+pipedTable+" SELECT * FROM "+movedTable+" WHERE "+slot+" = ANY ('{"+strings.Join(t.slots, ",")+"}')")
	if err != nil {
		return err
	}
	for _, conn := range t.split {
		if err := execute(ctx, conn, "VACUUM ANALYZE", "CHECKPOINT"); err != nil {
			return err
		}
	}
	t.rows, err = countRows(ctx, t.split[0], pipedTable)
	return err
}

// runWay carries the rows over once.
func (m *measurement) runWay(ctx context.Context, t *moveStage, way string) error {
	add := func(figure string, v float64) { m.moves.add(movedTable, way, figure, v) }
	begun := time.Now()
	switch way {
	case moveWay:
		moved, err := t.move(ctx)
		if err != nil {
			return err
		}
		add("owned", moved.owned.Seconds())
		add("held", moved.heldMs)
		add("rows", float64(t.rows)/moved.owned.Seconds())
	case pipeWay:
		if err := t.pipe(ctx); err != nil {
			return err
		}
		add("rows", float64(t.rows)/time.Since(begun).Seconds())
	default:
		if err := t.replicate(ctx); err != nil {
			return err
		}
		add("rows", float64(t.rows)/time.Since(begun).Seconds())
		if err := t.endReplication(ctx); err != nil {
			return err
		}
	}
	if way == moveWay {
		add("whole", time.Since(begun).Seconds())
		return nil
	}
	if n, err := countRows(ctx, t.split[1], pipedTable); err != nil || n != t.rows {
		return fmt.Errorf("%d of %d rows came: %w", n, t.rows, err)
	}
	return execute(ctx, t.split[1], "TRUNCATE "+pipedTable)
}

// oneMove is what one took.
type oneMove struct {
	owned  time.Duration // until the other shard owned the slots
	heldMs float64
}

// move has the slots change their shard, and waits until the rows are deleted where they were.
func (t *moveStage) move(ctx context.Context) (took oneMove, err error) {
	to := map[string]string{"s0": "s1", "s1": "s0"}[t.at]
	begun := time.Now()
	out, err := exec.CommandContext(ctx, t.stage.options.proxy, "rebalance", "start", "--config", t.stage.configFile("shards"),
		"--slots", strings.Join(t.slots, ","), "--to", to, "--step-slots", "65536", "--step-bytes", "1TB").CombinedOutput()
	if err != nil {
		return took, fmt.Errorf("shardproxy rebalance start: %w: %s", err, out)
	}
	var phase, said string
	for phase != "done" {
		if err := ctx.Err(); err != nil {
			return took, err
		}
		time.Sleep(5 * time.Millisecond)
		err := t.split[0].QueryRow(ctx, "SELECT phase, held_ms, said FROM shardproxy.moves ORDER BY id DESC LIMIT 1").Scan(&phase, &took.heldMs, &said)
		if err != nil {
			return took, err
		}
		switch phase {
		case "aborted":
			return took, fmt.Errorf("the move was given up: %s", said)
		case "flipped", "purging", "done":
			if took.owned == 0 {
				took.owned = time.Since(begun)
			}
		}
	}
	t.at = to
	return took, nil
}

// pipe carries the rows over as an operator would who may stop all writes.
func (t *moveStage) pipe(ctx context.Context) error {
	binaries := t.stage.cluster.Binaries()
	dump := exec.CommandContext(ctx, binaries.Path("pg_dump"), "--data-only", "--table", pipedTable, "--dbname", t.stage.cluster.Primary().DSN(shardsDatabase, userName))
	restore := exec.CommandContext(ctx, binaries.Path("psql"), "-q", "-X", "-v", "ON_ERROR_STOP=1", "--single-transaction", t.second.Primary().DSN(shardsDatabase, userName))
	var failed strings.Builder
	dump.Stderr, restore.Stderr = &failed, &failed
	var err error
	if restore.Stdin, err = dump.StdoutPipe(); err != nil {
		return err
	}
	if err := restore.Start(); err != nil {
		return err
	}
	if err := errors.Join(dump.Run(), restore.Wait()); err != nil {
		return fmt.Errorf("pg_dump | psql: %w: %s", err, failed.String())
	}
	return nil
}

// replicate carries the rows over by PostgreSQL's own logical replication, until the copy is there and changes are followed.
func (t *moveStage) replicate(ctx context.Context) error {
	if err := execute(ctx, t.split[0], "CREATE PUBLICATION piped FOR TABLE "+pipedTable); err != nil {
		return err
	}
	dsn := strings.ReplaceAll(t.stage.cluster.Primary().DSN(shardsDatabase, pgcluster.Superuser), "'", "''")
	if err := execute(ctx, t.split[1], "CREATE SUBSCRIPTION piped CONNECTION '"+dsn+"' PUBLICATION piped"); err != nil {
		return err
	}
	for state := ""; state != "r"; {
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
		if err := t.split[1].QueryRow(ctx, "SELECT srsubstate::text FROM pg_subscription_rel WHERE srrelid = '"+pipedTable+"'::regclass").Scan(&state); err != nil {
			return err
		}
	}
	return nil
}

func (t *moveStage) endReplication(ctx context.Context) error {
	if err := execute(ctx, t.split[1], "DROP SUBSCRIPTION piped"); err != nil {
		return err
	}
	return execute(ctx, t.split[0], "DROP PUBLICATION piped")
}

// runFelt has clients ask at a fixed rate, with or without slots that move meanwhile, again and again.
func (m *measurement) runFelt(ctx context.Context, t *moveStage, row, when string) error {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	moving := make(chan error, 1)
	ending := make(chan struct{})
	go func() {
		for when == underMoves {
			if _, err := t.move(inner); err != nil {
				moving <- err
				return
			}
			select {
			case <-ending:
				moving <- nil
				return
			default:
			}
		}
		moving <- nil
	}()
	r, used, err := m.loaded(ctx, t.side, load{mode: "prepared", clients: feltClients, rate: feltRate, script: t.scripts[row]})
	close(ending)
	if err != nil {
		stop()
	}
	if err := errors.Join(err, <-moving); err != nil {
		return err
	}
	m.noteLatency(m.felt, row, &endpoint{name: when}, r)
	m.felt.add(row, when, "held", r.tps/feltRate)
	m.felt.add(row, when, "cpu", float64(used.cpu.Nanoseconds())/1000/float64(r.statements))
	return nil
}

func (m *measurement) moveTable() table {
	var t table
	t.row("way", "rows", "rows a second", "/ "+pipeWay+" (range)", "until the owner changed, s", "until all was deleted, s", "writes held, ms (range)")
	for _, way := range moveWays() {
		get := func(figure string) series { return m.moves.get(movedTable, way, figure) }
		t.row(way, strconv.Itoa(m.moved), get("rows").text(0), m.moves.against(movedTable, way, pipeWay, "rows").span(2), get("owned").text(2), get("whole").text(1), get("held").span(0))
	}
	return t
}

func (m *measurement) feltTable() table {
	var t table
	t.row("statement", "meanwhile", "of the rate", "p50 us", "/ "+quietMoves+" (range)", "p99 us", "/ "+quietMoves+" (range)", "CPU ms per 1,000 of the proxy")
	for _, row := range feltRows() {
		for _, when := range []string{quietMoves, underMoves} {
			get := func(figure string) series { return m.felt.get(row, when, figure) }
			ratio := func(figure string) series { return m.felt.against(row, when, quietMoves, figure) }
			t.row(row, when, get("held").text(2), get("p50").text(0), ratio("p50").span(2), get("p99").text(0), ratio("p99").span(2), get("cpu").text(0))
		}
	}
	return t
}

// moveGoals bounds what clients feel of moves.
func (m *measurement) moveGoals() []goal {
	return []goal{
		{"writes held by a move, ms", m.moves.get(movedTable, moveWay, "held"), 500, true},
		{"p99 of selects while slots move / while none does", m.felt.against("select", underMoves, quietMoves, "p99"), 1.25, true},
	}
}
