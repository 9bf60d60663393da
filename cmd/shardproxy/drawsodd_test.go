package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestDrawsOdd holds what drawing values got wrong once, or might.
func TestDrawsOdd(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, "      items: {key: customer_id}\n      refs:  {reference: true}\n")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE items (id serial, customer_id int, note text, PRIMARY KEY (customer_id, id))")
	must(t, c, "CREATE TABLE refs (id serial PRIMARY KEY, u uuid DEFAULT gen_random_uuid(), note text)")
	// Rows of another length than the list, and more rows than are written.
	fails(t, c, "INSERT INTO items (note, id, customer_id) VALUES ('x')", "42601")
	fails(t, c, "INSERT INTO items (customer_id, note, id) VALUES (1, 'x', DEFAULT), (2, 'y')", "0A000")
	must(t, c, "INSERT INTO items (customer_id, note) VALUES (7, generate_series(1, 3)::text)")
	if got := one(t, c, "SELECT count(DISTINCT id) || ' ' || string_agg(note, ',' ORDER BY note) FROM items WHERE customer_id = 7"); got != "3 1,2,3" {
		t.Error(got)
	}
	// Defaults that each shard would make for itself.
	must(t, c, "INSERT INTO items (customer_id) VALUES (1)")
	must(t, c, "INSERT INTO refs (note) VALUES ('x')")
	fails(t, c, "UPDATE items SET id = DEFAULT WHERE customer_id = 1", "0A000")
	fails(t, c, "INSERT INTO items (customer_id, id) VALUES (1, 1) ON CONFLICT (customer_id, id) DO UPDATE SET id = DEFAULT", "0A000")
	fails(t, c, "UPDATE refs SET u = DEFAULT", "0A000")
	fails(t, c, "UPDATE refs SET id = DEFAULT", "0A000")
	fails(t, c, "ALTER TABLE items ADD COLUMN n serial", "0A000")
	fails(t, c, "ALTER TABLE items ADD n int GENERATED ALWAYS AS IDENTITY", "0A000")
	fails(t, c, "ALTER TABLE refs ADD COLUMN v uuid DEFAULT gen_random_uuid()", "0A000")
	fails(t, c, "ALTER TABLE refs ADD COLUMN w timestamptz DEFAULT statement_timestamp()", "0A000")
	must(t, c, "ALTER TABLE items ADD COLUMN made timestamptz DEFAULT now(), ADD COLUMN k int DEFAULT 5")
	must(t, c, "ALTER TABLE refs ADD COLUMN k int DEFAULT 5")
	// In a transaction that has changed definitions they are not known.
	must(t, c, "BEGIN")
	must(t, c, "ALTER TABLE items ADD COLUMN other int")
	fails(t, c, "INSERT INTO items (customer_id) VALUES (1)", "0A000")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	must(t, c, "TRUNCATE refs RESTART IDENTITY")
	fails(t, c, "INSERT INTO refs (note) VALUES ('x')", "57P03")
	must(t, c, "ROLLBACK")
	// What a row sets stays nobody's.
	must(t, c, "INSERT INTO items (customer_id, note) VALUES (1, set_config('search_path', 'pg_catalog', false)), (2, 'b'), (3, 'c')")
	for range 5 {
		other := s.connect()
		must(t, other, "SELECT count(*) FROM items WHERE customer_id = 1")
		must(t, other, "SELECT count(*) FROM items WHERE customer_id = 2")
	}
	c = s.connect()
	// A sentinel moves no sequence, and the last values of one are given out.
	must(t, c, "INSERT INTO items (customer_id, id) VALUES (9, 2147483647)")
	must(t, c, "ALTER SEQUENCE items_id_seq MAXVALUE 60 RESTART 21")
	for i := 21; i <= 60; i++ {
		if got := one(t, c, "INSERT INTO items (customer_id) VALUES ($1) RETURNING id", i); got == "" {
			t.Fatal(i)
		}
	}
	fails(t, c, "INSERT INTO items (customer_id) VALUES (5)", "2200H")
	must(t, c, "ALTER SEQUENCE items_id_seq MAXVALUE 1000000")
	// The binary format has numbers of its own.
	if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"items"}, []string{"customer_id", "note"}, pgx.CopyFromRows([][]any{{7, "bin"}, {8, "bin"}})); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if got := one(t, c, "SELECT id < 1000 FROM items WHERE customer_id = 7 AND note = 'bin'"); got != "true" {
		t.Errorf("drawn for a binary copy: %s", got)
	}
	if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"refs"}, []string{"note"}, pgx.CopyFromRows([][]any{{"bin"}})); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if got := s.onEach("SELECT string_agg(id || note || u, ',' ORDER BY id) FROM refs"); got[0] != got[1] {
		t.Errorf("the copies: %q", got)
	}
	// Large values go where they belong.
	for i := range 6 {
		must(t, c, "INSERT INTO customers VALUES ($1, $2)", 100+i, strings.Repeat("x", 100_000))
		if got := one(t, c, "SELECT length(name) FROM customers WHERE id = $1", 100+i); got != "100000" {
			t.Errorf("customer %d has a name of %s", i, got)
		}
	}
	// A single table is described where it is.
	must(t, c, "CREATE TABLE alone (a int)")
	must(t, c, "BEGIN")
	must(t, c, "SELECT * FROM customers WHERE id = 101")
	must(t, c, "SELECT * FROM alone WHERE a = $1", 1)
	must(t, c, "COMMIT")
}

// TestBatchOdd sends by hand what drivers send in odd orders.
func TestBatchOdd(t *testing.T) {
	s := startShards(t, 2, "      items: {key: customer_id}\n")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE items (id serial, customer_id int, note text, PRIMARY KEY (customer_id, id))")
	must(t, c, "CREATE TABLE spare (note text)")
	h := s.connect().PgConn()
	if err := h.SyncConn(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw, err := h.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Conn.Close()
	send := func(want string, messages ...pgproto3.FrontendMessage) {
		t.Helper()
		for _, m := range messages {
			raw.Frontend.Send(m)
		}
		if err := raw.Frontend.Flush(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "Z") {
			m, err := raw.Frontend.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.ParseComplete:
				got = append(got, "1")
			case *pgproto3.BindComplete:
				got = append(got, "2")
			case *pgproto3.CloseComplete:
				got = append(got, "3")
			case *pgproto3.ParameterDescription:
				got = append(got, "t")
			case *pgproto3.RowDescription:
				got = append(got, "T")
			case *pgproto3.NoData:
				got = append(got, "n")
			case *pgproto3.DataRow:
				got = append(got, "D:"+string(m.Values[0]))
			case *pgproto3.CommandComplete:
				got = append(got, "C:"+string(m.CommandTag))
			case *pgproto3.ErrorResponse:
				got = append(got, "E:"+m.Code)
			case *pgproto3.ReadyForQuery:
				got = append(got, "Z"+string(m.TxStatus))
			}
		}
		if said := strings.Join(got, " "); said != want {
			t.Errorf("%s, should be %s", said, want)
		}
	}
	bind := func(name string, values ...string) *pgproto3.Bind {
		b := &pgproto3.Bind{PreparedStatement: name}
		for _, v := range values {
			b.Parameters = append(b.Parameters, []byte(v))
		}
		return b
	}
	run, sync := &pgproto3.Execute{}, &pgproto3.Sync{}
	const insert = "INSERT INTO items (customer_id, note) VALUES ($1, $2) RETURNING note"
	send("1 t T ZI", &pgproto3.Parse{Name: "a", Query: insert}, &pgproto3.Describe{ObjectType: 'S', Name: "a"}, sync)
	send("2 D:x C:INSERT 0 1 2 D:y C:INSERT 0 1 ZI", bind("a", "1", "x"), run, bind("a", "2", "y"), run, sync)
	send("1 2 D:z C:INSERT 0 1 ZI", &pgproto3.Parse{Name: "b", Query: "INSERT INTO items (customer_id, note) VALUES ($1, 'b')"}, bind("a", "3", "z"), run, sync)
	send("1 2 n C:BEGIN 1 2 T D:q C:INSERT 0 1 ZT", &pgproto3.Parse{Query: "BEGIN"}, bind(""), &pgproto3.Describe{ObjectType: 'P'}, run,
		&pgproto3.Parse{Query: insert}, bind("", "4", "q"), &pgproto3.Describe{ObjectType: 'P'}, run, sync)
	send("1 2 C:COMMIT ZI", &pgproto3.Parse{Query: "COMMIT"}, bind(""), run, sync)
	send("3 1 t T 2 D:w C:INSERT 0 1 ZI", &pgproto3.Close{ObjectType: 'S', Name: "a"}, &pgproto3.Parse{Name: "a", Query: insert},
		&pgproto3.Describe{ObjectType: 'S', Name: "a"}, bind("a", "5", "w"), run, sync)
	send("1 2 E:23505 ZI", &pgproto3.Parse{Query: "INSERT INTO items (customer_id, id, note) VALUES ($1, 1, $2)"}, bind("", "1", "x"), run, sync)
	send("2 D:k C:INSERT 0 1 E:22P02 ZI", bind("a", "6", "k"), run, bind("a", "no", "l"), run, bind("a", "7", "m"), run, sync)
	// What drivers do that ask first and flush.
	raw.Frontend.Send(&pgproto3.Parse{Query: "SELECT note FROM items WHERE customer_id = $1"})
	raw.Frontend.Send(&pgproto3.Describe{ObjectType: 'S'})
	raw.Frontend.Send(&pgproto3.Flush{})
	if err := raw.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := raw.Frontend.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	send("2 D:w C:SELECT 1 ZI", bind("", "5"), run, sync)
	for i, want := range map[int]string{1: "x", 2: "y", 3: "z", 4: "q", 5: "w"} {
		if got := one(t, c, "SELECT string_agg(note, ',') FROM items WHERE customer_id = $1", i); got != want {
			t.Errorf("customer %d has %s", i, got)
		}
	}
}
