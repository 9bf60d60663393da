package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

// cause fails unless the error is a CarryError of this cause whose text has these words.
func cause(t testing.TB, err error, want Cause, words ...string) {
	t.Helper()
	var e *CarryError
	if !errors.As(err, &e) || e.Cause != want {
		t.Fatalf("%v, want %s", err, want)
	}
	for _, word := range words {
		if !strings.Contains(e.Error()+" "+e.Hint, word) {
			t.Errorf("%v (%s), want %q in it", e, e.Hint, word)
		}
	}
}

const errorsSchema = `
CREATE TYPE mood AS ENUM ('sad');
CREATE TABLE t (id int PRIMARY KEY, tenant bigint, email text UNIQUE, m mood);
ALTER TABLE t ALTER email SET STORAGE EXTERNAL;
CREATE TABLE second (tenant bigint, id int, PRIMARY KEY (tenant, id));
`

func everySecondSlot() (slots []shardmap.Slot) {
	for s := shardmap.Slot(0); s < carryTestSlots; s += 2 {
		slots = append(slots, s)
	}
	return slots
}

func newErrorsPair(t *testing.T) *carryPair {
	return newCarryPair(t, errorsSchema, map[string][]string{"t": {"tenant"}, "second": {"tenant"}}, everySecondSlot()...)
}

// fails runs Follow, does what is to end it, and returns its error.
func (p *carryPair) fails(c *Carry, o Origin, do func()) error {
	p.t.Helper()
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	go func() { ended <- c.Follow(ctx, o) }()
	do()
	return <-ended
}

// again takes all of a move away.
func (p *carryPair) again(c *Carry) {
	p.t.Helper()
	if err := errors.Join(c.Clean(p.t.Context()), c.ClearTarget(p.t.Context())); err != nil {
		p.t.Fatal(err)
	}
	p.clean()
}

// TestCarryEnds: what ends a move is told as what it is.
func TestCarryEnds(t *testing.T) {
	p := newErrorsPair(t)
	inside, outside := p.keys(3)
	for _, test := range []struct {
		name   string
		do     string // on the source while it is followed; $i and $o are tenants of moving and of other slots
		target string // on the target before
		cause  Cause
		words  []string
	}{
		{"truncated", "INSERT INTO t VALUES (1, $i); TRUNCATE t, second", "", Truncated, []string{`"public"."t"`, `"public"."second"`}},
		{"column added", "ALTER TABLE t ADD extra int; INSERT INTO t VALUES (1, $i)", "", Redefined, []string{"it has 5 stored columns, not 4"}},
		{"type changed", "ALTER TABLE t ALTER email TYPE varchar(100); INSERT INTO t VALUES (1, $i)", "", Redefined, []string{"email"}},
		{"column renamed", "ALTER TABLE t RENAME email TO mail; INSERT INTO t VALUES (1, $i)", "", Redefined, []string{"email"}},
		{"table renamed", "ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (1, $i)", "", Redefined, []string{"public.u"}},
		{"identity gone", "INSERT INTO t VALUES (1, $i); ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (2, $i)", "", Redefined, []string{"replica identity"}},
		{"other primary key", "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (id, tenant); INSERT INTO t VALUES (1, $i)", "", Redefined, []string{"primary key"}},
		{"collision", "INSERT INTO t VALUES (7, $i, 'a@x')", "INSERT INTO t VALUES (2, $o, 'a@x')", Collided, []string{"t_email_key", "(email)=(a@x)", `("id")=(7)`}},
		{"primary key's collision", "INSERT INTO t VALUES (2, $i, 'b@x')", "INSERT INTO t VALUES (2, $o, 'a@x')", Collided, []string{"t_pkey", "(id)=(2)"}},
		{"value that the target does not know", "ALTER TYPE mood ADD VALUE 'new'; COMMIT; INSERT INTO t VALUES (3, $i, NULL, 'new')", "", Refused, []string{`("id")=(3)`, "mood"}},
		{"overtaken", "SELECT 1", "", Overtaken, nil},
		{"slot dropped", "SELECT 1", "", SlotLost, []string{"no replication slot"}},
		{"other server", "SELECT 1", "", SlotLost, []string{"failed over"}},
		{"target went back", "SELECT 1", "", SlotLost, []string{"has lost what it had committed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := *p
			p.t = t
			for _, n := range []*pgtest.Node{p.source, p.target} {
				n.Exec("app", "DROP TABLE IF EXISTS t, u, second; DROP TYPE mood;"+errorsSchema)
			}
			p.loadTables(map[string][]string{"t": {"tenant"}, "second": {"tenant"}})
			sql := strings.NewReplacer("$i", fmt.Sprint(inside[0]), "$o", fmt.Sprint(outside[0]))
			c := p.carry(test.name)
			o := p.copied(c)
			if test.target != "" {
				p.target.Exec("app", sql.Replace(test.target))
			}
			stop := p.follow(c, o)
			p.catchUp(c)
			var err error
			switch test.name {
			case "overtaken":
				p.target.Exec("app", "UPDATE shardproxy.move_progress SET lsn = lsn + 1")
				p.source.Exec("app", sql.Replace("INSERT INTO t VALUES (1, $i)"))
			case "slot dropped":
				p.source.Exec("app", "SELECT 1")
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if err := c.Clean(t.Context()); err != nil {
					t.Fatal(err)
				}
				p.source.Exec("app", "CREATE PUBLICATION "+MoveObject(test.name)+" FOR TABLE t, second")
			case "target went back":
				p.source.Exec("app", sql.Replace("INSERT INTO t VALUES (1, $i)"))
				p.catchUp(c)
				carrySleepFor(t, 2500*time.Millisecond) // until the slot is told
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				p.target.Exec("app", "UPDATE shardproxy.move_progress SET lsn = '"+o.LSN.String()+"'")
			case "other server":
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				o.Timeline++
			default:
				for _, text := range strings.Split(sql.Replace(test.do), "COMMIT;") {
					p.source.Exec("app", text)
				}
			}
			switch test.name {
			case "slot dropped", "other server", "target went back":
				err = p.fails(c, o, func() {})
			default:
				select {
				case <-p.failed:
				case <-time.After(10 * time.Second):
				}
				err = stop()
			}
			cause(t, err, test.cause, test.words...)
			p.again(c)
		})
	}
}

// TestCarryNotBegun: what keeps a move from beginning.
func TestCarryNotBegun(t *testing.T) {
	p := newErrorsPair(t)
	inside, outside := p.keys(3)
	ctx := t.Context()
	options := p.options("begin")
	options.Wait = 700 * time.Millisecond
	c := NewCarry(options)

	t.Run("without a copy", func(t *testing.T) { cause(t, c.Follow(ctx, Origin{}), NotCopied) })
	t.Run("long transaction", func(t *testing.T) {
		conn := pgtest.Connect(t, p.source.DSN("app", "postgres")+"&application_name=slowpoke")
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			t.Fatal(err)
		}
		_, err = c.Prepare(ctx)
		cause(t, err, Delayed, "slowpoke", "idle in transaction", fmt.Sprint(conn.PgConn().PID()))
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		p.again(c)
	})
	t.Run("prepared transaction", func(t *testing.T) {
		p.source.Exec("app", "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'for ''gotten'")
		_, err := c.Prepare(ctx)
		cause(t, err, Delayed, "prepared transaction 'for ''gotten'")
		p.source.Exec("app", "ROLLBACK PREPARED 'for ''gotten'")
		p.again(c)
	})
	t.Run("left over", func(t *testing.T) {
		s, err := c.Prepare(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Prepare(ctx)
		cause(t, err, LeftOver, "publication")
		p.source.Exec("app", "DROP PUBLICATION "+MoveObject("begin"))
		_, err = c.Prepare(ctx)
		cause(t, err, LeftOver, "replication slot")
		if err := c.Copy(ctx, s, 1); err != nil {
			t.Fatal(err)
		}
		cause(t, c.Copy(ctx, s, 1), LeftOver, "earlier copy")
		s.Close()
		s.Close()
		p.again(c)
		p.again(c) // twice is no error
	})
	t.Run("collision", func(t *testing.T) {
		p.target.Exec("app", fmt.Sprintf("INSERT INTO t VALUES (1, %d, 'a@x')", outside[0]))
		p.source.Exec("app", fmt.Sprintf("INSERT INTO t VALUES (7, %d, 'a@x')", inside[0]))
		s, err := c.Prepare(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		cause(t, c.Copy(ctx, s, 2), Collided, `"public"."t"`, "t_email_key", "(email)=(a@x)")
		p.again(c)
		p.source.Exec("app", "DELETE FROM t")
	})
	t.Run("changed between", func(t *testing.T) {
		s, err := c.Prepare(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		p.source.Exec("app", "TRUNCATE t")
		cause(t, c.Copy(ctx, s, 1), Redefined, "truncated or rewritten")
		p.again(c)
	})
	t.Run("taken from the publication", func(t *testing.T) {
		p.copied(c)
		conn := pgtest.Connect(t, p.source.DSN("app", "postgres"))
		if err := c.Check(ctx, conn); err != nil {
			t.Error(err)
		}
		p.source.Exec("app", "ALTER PUBLICATION "+MoveObject("begin")+" DROP TABLE second")
		cause(t, c.Check(ctx, conn), Redefined, "publication")
		p.again(c)
	})
	for _, test := range []struct {
		name, source, target string
		cause                Cause
		word                 string
	}{
		{"deferrable identity", "ALTER TABLE second DROP CONSTRAINT second_pkey, ADD PRIMARY KEY (tenant, id) DEFERRABLE", "", Redefined, "checked at once"},
		{"deferrable constraint", "", "ALTER TABLE t DROP CONSTRAINT t_email_key, ADD CONSTRAINT late UNIQUE (email) DEFERRABLE", Refused, "late"},
		{"other column", "", "ALTER TABLE t ALTER email TYPE varchar(5)", Redefined, "email"},
		{"no table", "", "DROP TABLE second", Redefined, "no such table"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, n := range []*pgtest.Node{p.source, p.target} {
				n.Exec("app", "DROP TABLE IF EXISTS t, second; DROP TYPE mood;"+errorsSchema)
			}
			p.source.Exec("app", "SELECT 1;"+test.source)
			p.target.Exec("app", "SELECT 1;"+test.target)
			s, err := c.Prepare(ctx)
			if err == nil {
				defer s.Close()
				err = c.Copy(ctx, s, 1)
			}
			cause(t, err, test.cause, test.word)
			if err := c.Clean(ctx); err != nil {
				t.Error(err)
			}
			p.clean()
		})
	}
}

// TestCarryRights: a role that is no superuser moves rows with the rights that the errors name, and not without.
func TestCarryRights(t *testing.T) {
	p := newErrorsPair(t)
	inside, _ := p.keys(1)
	for _, n := range []*pgtest.Node{p.source, p.target} {
		n.Exec("app", `CREATE ROLE mover LOGIN PASSWORD 'app-secret'; ALTER TABLE t OWNER TO mover; ALTER TABLE second OWNER TO mover; ALTER ROLE mover SET synchronous_commit = off;
			ALTER ROLE mover SET statement_timeout = '5s'; GRANT USAGE ON SCHEMA shardproxy TO mover; GRANT ALL ON shardproxy.move_progress TO mover`)
	}
	p.user = "app"
	options := p.options("rights")
	as := func(n *pgtest.Node, database string) string {
		return fmt.Sprintf("postgres://mover:app-secret@%s/%s", n.Addr(), database)
	}
	options.Source = func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, as(p.source, "app")) }
	options.Target = func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, as(p.target, "app")) }
	options.Replication = replicationTo(as(p.source, "app?replication=database"))
	c := NewCarry(options)
	_, err := c.Prepare(t.Context())
	cause(t, err, Denied, "permission denied for database")
	p.source.Exec("app", "GRANT CREATE ON DATABASE app TO mover")
	_, err = c.Prepare(t.Context())
	cause(t, err, Denied, "replication")
	p.source.Exec("app", "ALTER ROLE mover REPLICATION")
	if err := c.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := c.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cause(t, c.Copy(t.Context(), s, 1), Denied, "session_replication_role", `GRANT SET ON PARAMETER session_replication_role TO "mover"`)
	p.target.Exec("app", "GRANT SET ON PARAMETER session_replication_role TO mover")
	if err := c.Copy(t.Context(), s, 1); err != nil {
		t.Fatal(err)
	}
	s.Close()
	stop := p.follow(c, s.Origin)
	p.source.Exec("app", fmt.Sprintf("INSERT INTO t SELECT g, %d FROM generate_series(1, 3000) g", inside[0]))
	p.catchUp(c)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if p.same() != 3000 {
		t.Error("rows are missing")
	}
	target, err := c.openTarget(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer target.close()
	var settings string
	if err := target.QueryRow(t.Context(), `SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings
		WHERE name IN ('synchronous_commit', 'session_replication_role', 'statement_timeout')`).Scan(&settings); err != nil || settings != "replica 0 on" {
		t.Errorf("%s, %v", settings, err)
	}
	p.again(c)
}
