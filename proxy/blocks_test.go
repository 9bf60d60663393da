package proxy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/proxy"
	"shardproxy/query"
	"shardproxy/wire"
)

// blocks has the database block a statement.
func (f *fixture) blocks(statement string, until time.Time) {
	f.t.Helper()
	b, err := proxy.Blockable(statement)
	if err != nil {
		f.t.Fatal(err)
	}
	b.By, b.Since, b.Until = "ops", time.Now(), until
	if err := f.db.Block(b); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) unblocks(statement string) {
	f.t.Helper()
	b, err := proxy.Blockable(statement)
	if err != nil || !f.db.Unblock(b.Fingerprint) {
		f.t.Fatal(err)
	}
}

func isBlocked(err error) bool {
	pe := new(pgconn.PgError)
	return errors.As(err, &pe) && pe.Code == "42501" && pe.Message == "the statement is blocked by an operator"
}

// TestBlock: a statement that is blocked is refused in whatever way it comes, whenever it
// was prepared; others run, and it runs again when it is not.
func TestBlock(t *testing.T) {
	const bad, good = "SELECT 7 + 1", "SELECT 7 - 1"
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver})
		c := f.connect("")
		ctx := ctx10(t)
		run := func(sql string) error { _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); return err }
		prepare := func(name, sql string) {
			if _, err := c.PgConn().Prepare(ctx, name, sql, nil); err != nil {
				t.Fatal(err)
			}
		}
		bound := func(name string) error {
			return c.PgConn().ExecPrepared(ctx, name, nil, nil, nil).Read().Err
		}
		prepare("before", bad)
		if err := run("PREPARE old AS " + bad); err != nil {
			t.Fatal(err)
		}
		// The unnamed statement stays from one request to the next.
		if r := c.PgConn().ExecParams(ctx, bad, nil, nil, nil, nil).Read(); r.Err != nil {
			t.Fatal(r.Err)
		}
		f.blocks("select 1 + 2;", time.Time{})
		unnamed := func() error { return bound("") }
		ways := map[string]func() error{
			"simple":             func() error { return run(bad) },
			"other constants":    func() error { return run("/* x */ select 70+10 ;") },
			"first of several":   func() error { return run(bad + ";" + good) },
			"last of several":    func() error { return run(good + ";" + bad) },
			"in a transaction":   func() error { return run("BEGIN;" + bad + ";COMMIT") },
			"prepared before":    func() error { return bound("before") },
			"execute":            func() error { return run("EXECUTE old") },
			"execute of several": func() error { return run("SELECT 1; EXECUTE old") },
			"extended": func() error {
				return c.PgConn().ExecParams(ctx, bad, nil, nil, nil, nil).Read().Err
			},
			"execute extended": func() error {
				return c.PgConn().ExecParams(ctx, "EXECUTE old", nil, nil, nil, nil).Read().Err
			},
			"batch": func() error {
				b := &pgconn.Batch{}
				b.ExecParams(good, nil, nil, nil, nil)
				b.ExecParams(bad, nil, nil, nil, nil)
				_, err := c.PgConn().ExecBatch(ctx, b).ReadAll()
				return err
			},
			"prepared now": func() error {
				prepare("now", bad)
				defer run("DEALLOCATE now")
				return bound("now")
			},
		}
		check := func(when string) {
			t.Helper()
			for name, way := range ways {
				if err := way(); !isBlocked(err) {
					t.Errorf("driver %v, %s, %s: %v", driver, when, name, err)
				}
				if err := run(good); err != nil {
					t.Fatalf("driver %v, behind %s: %v", driver, name, err)
				}
			}
		}
		// What a simple query leaves of the unnamed statement is nothing: it comes first.
		if err := unnamed(); !isBlocked(err) {
			t.Errorf("driver %v, unnamed: %v", driver, err)
		}
		check("outside of a transaction")
		if err := run("SET application_name = 'x'; SELECT pg_advisory_lock(5)"); err != nil { // pinned: there is a lease
			t.Fatal(err)
		}
		check("with a connection of its own")
		if err := run("SELECT pg_advisory_unlock(5)"); err != nil {
			t.Fatal(err)
		}
		delete(ways, "in a transaction")
		for name, way := range ways {
			if name == "prepared now" {
				continue // it cannot be deallocated then
			}
			if err := run("BEGIN"); err != nil {
				t.Fatal(err)
			}
			if err := way(); !isBlocked(err) {
				t.Errorf("driver %v, in a transaction, %s: %v", driver, name, err)
			}
			if status := c.PgConn().TxStatus(); status != 'E' {
				t.Errorf("driver %v, %s: the transaction is %c", driver, name, status)
			}
			if err := run("ROLLBACK"); err != nil {
				t.Fatal(err)
			}
		}
		said := new(pgconn.PgError)
		if err := run(bad); !errors.As(err, &said) || !strings.Contains(said.Detail, "blocked by ops since 2") || !strings.Contains(said.Hint, "UNBLOCK FINGERPRINT '") {
			t.Errorf("told %+v", said)
		}
		if got := f.db.Blocks(); len(got) != 1 || got[0].Refused < 30 || got[0].Text != "select $1 + $2" {
			t.Errorf("%+v", got)
		}
		if got := f.db.Refusals()["blocked"]; got != f.db.Blocks()[0].Refused {
			t.Error(got, "refusals")
		}
		// Parsed, and refused when it was bound; then it is not any more.
		if _, err := c.PgConn().Prepare(ctx, "", bad, nil); err != nil {
			t.Fatal(err)
		}
		if err := unnamed(); !isBlocked(err) {
			t.Error(err)
		}
		f.unblocks(bad)
		if err := unnamed(); err != nil {
			t.Error(err)
		}
		for name, way := range ways {
			if err := way(); err != nil {
				t.Errorf("driver %v, unblocked, %s: %v", driver, name, err)
			}
		}
	}
}

// TestBlockPrepare: what PREPARE carries is looked at, however it names it: what the proxy does not follow, as types of
// its user's own, or several commands in one text, could be executed later unseen.
func TestBlockPrepare(t *testing.T) {
	f := start(t, fixtureOptions{})
	f.blocks("SELECT 7 + 1", time.Time{})
	for _, sql := range []string{
		"PREPARE p AS SELECT 7 + 1; EXECUTE p",
		"SELECT 1; prepare \"P p\" (int, text) as /* x */ select 70+10 ; SELECT 2",
		"PREPARE p (pg_catalog.int4) AS SELECT 7 + 1",
		"PREPARE p AS SELECT 7 + 1",
	} {
		c := f.connect("")
		if _, err := c.Exec(ctx10(t), sql, pgx.QueryExecModeSimpleProtocol); !isBlocked(err) {
			t.Errorf("%s: %v", sql, err)
		}
		if _, err := c.Exec(ctx10(t), "EXECUTE p", pgx.QueryExecModeSimpleProtocol); !hasState(err, "26000") {
			t.Errorf("behind %s: %v", sql, err)
		}
		if _, err := c.Exec(ctx10(t), "PREPARE p (pg_catalog.int4) AS SELECT 7 - $1; EXECUTE p (1)", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Errorf("another, behind %s: %v", sql, err)
		}
	}
}

// TestBlockUntil: a block that has an end ends, and refuses before a connection is waited for.
func TestBlockUntil(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	holder, c := f.connect(""), f.connect("")
	if _, err := holder.Exec(ctx10(t), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(700 * time.Millisecond)
	f.blocks("SELECT 3", end)
	if _, err := c.Exec(ctx10(t), "SELECT 4"); !isBlocked(err) || !strings.Contains(err.(*pgconn.PgError).Hint, "Try again after") {
		t.Errorf("%v", err)
	}
	if _, err := holder.Exec(ctx10(t), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { _, err := c.Exec(ctx10(t), "SELECT 4"); return err == nil })
	if time.Now().Before(end) || len(f.db.Blocks()) > 0 {
		t.Error("the block ended early, or is still shown")
	}
}

// TestBlocksOfConfiguration: a reload replaces them, keeps what operators have ordered, and what was counted.
func TestBlocksOfConfiguration(t *testing.T) {
	db := &proxy.Database{}
	of := func(texts ...string) (all []proxy.Block) {
		for _, text := range texts {
			b, err := proxy.Blockable(text)
			if err != nil {
				t.Fatal(err)
			}
			b.Since = time.Unix(1, 0)
			all = append(all, b)
		}
		return all
	}
	texts := func() string {
		var list []string
		for _, b := range db.Blocks() {
			list = append(list, b.By+":"+b.Text)
		}
		return strings.Join(list, " ")
	}
	db.SetBlocks(of("SELECT a", "SELECT b"))
	o := of("SELECT o", "SELECT b")
	for i := range o {
		o[i].By = "ops"
		if err := db.Block(o[i]); err != nil {
			t.Fatal(err)
		}
	}
	db.SetBlocks(of("SELECT b"))
	if got := texts(); got != ":select b ops:select b ops:select o" && got != ":select b ops:select o ops:select b" {
		t.Error(got)
	}
	if !db.Unblock(o[1].Fingerprint) || db.Unblock(o[1].Fingerprint) || !db.Unblock(o[0].Fingerprint) {
		t.Error("orders cannot be taken back once")
	}
	if got := texts(); got != ":select b" {
		t.Error(got)
	}
	for i := range 1001 {
		err := db.Block(proxy.Block{Fingerprint: uint64(i)})
		if (err != nil) != (i == 1000) {
			t.Fatal(i, err)
		}
	}
}

func TestBlockable(t *testing.T) {
	for text, want := range map[string]string{"": "42601", "--": "42601", "SELECT 1; SELECT 2": "42601", "commit": "0A000", "ROLLBACK TO x": "0A000", "SELECT 1;": ""} {
		_, err := proxy.Blockable(text)
		got := ""
		if err != nil {
			got = wire.AsError(err).Code
		}
		if got != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	f, err := proxy.Blockable("00000000000000ff")
	if err != nil || f.Fingerprint != 255 || f.Text != "" {
		t.Error(f, err)
	}
}

// TestBlockPrints blocks fingerprints that were taken from a list: those of texts of several commands hold, and
// those of commands that end what was begun do not.
func TestBlockPrints(t *testing.T) {
	f := start(t, fixtureOptions{})
	c := f.connect("")
	for _, text := range []string{"SELECT 1; SELECT 2 + 2", "COMMIT", "ROLLBACK", "DEALLOCATE ALL", "BEGIN"} {
		if err := f.db.Block(proxy.Block{Fingerprint: query.FingerprintOf([]byte(text), query.Options{}).Hash, By: "dba", Since: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	for text, code := range map[string]string{"SELECT 3; SELECT 4 + 5": "42501", "SELECT 3; SELECT 4 - 5": "", "SELECT 3": "", "BEGIN": "", "COMMIT": "", "ROLLBACK": "", "DEALLOCATE ALL": ""} {
		if _, err := c.Exec(ctx10(t), text, pgx.QueryExecModeSimpleProtocol); err != nil && codeOf(err) != code || err == nil && code != "" {
			t.Errorf("%s: %v", text, err)
		}
		if strings.Contains(text, ";") {
			continue
		}
		if err := c.PgConn().ExecParams(ctx10(t), text, nil, nil, nil, nil).Read().Err; err != nil {
			t.Errorf("%s, extended: %v", text, err)
		}
	}
}
