package metadata

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

// refuses wants Init to find exactly one problem, and to write nothing.
func (f *fleet) refuses(t *testing.T, shard string, kind error, text string) {
	t.Helper()
	before := f.schemas()
	r, err := Init(t.Context(), f.opts)
	wantProblem(t, err, shard, kind, text)
	if r == nil || len(r.Steps) > 0 {
		t.Errorf("report %+v", r)
	}
	if after := f.schemas(); after != before {
		t.Errorf("a refused Init left %q, before %q", after, before)
	}
}

// schemas says what there is of the schema.
func (f *fleet) schemas() string {
	var b strings.Builder
	for i := range f.dbs {
		fmt.Fprintln(&b, f.value(i, `SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = to_regnamespace('shardproxy')`))
	}
	return b.String()
}

// do runs SQL as the superuser on one shard.
func (f *fleet) do(t *testing.T, shard int, sql string) {
	t.Helper()
	if _, err := f.root[shard].Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedServers(t *testing.T) {
	f := newFleet(t, 2)
	direct := slices.Clone(f.opts.Shards)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()

	f.opts.Shards[1].Connect = to("postgres://app@" + nobody.Addr().String() + "/app")
	f.refuses(t, "s1", ErrUnreachable, "connection refused")
	f.opts.Shards[1].Connect = to(strings.Replace(f.dbs[1].DSN("app"), "app-secret", "wrong", 1))
	f.refuses(t, "s1", ErrUnreachable, "password authentication failed")
	f.opts.Shards[1].Connect = nil
	f.refuses(t, "s1", ErrUnreachable, "no way to connect")
	f.opts.Shards[1].Connect = direct[0].Connect
	f.refuses(t, "s1", ErrSameDatabase, `same database as shard "s0"`)
	f.opts.Shards[1].Connect = direct[1].Connect

	f.do(t, 1, "ALTER DATABASE "+f.dbs[1].Name+" OWNER TO postgres")
	f.refuses(t, "s1", ErrPrivilege, `control user "app" may not create a schema`)
	f.do(t, 1, "CREATE SCHEMA shardproxy")
	f.refuses(t, "s1", ErrPrivilege, `belongs to "postgres", the control user is "app"`)
	f.do(t, 1, "ALTER SCHEMA shardproxy OWNER TO app; CREATE TABLE shardproxy.stranger (x int)")
	f.refuses(t, "s1", ErrInconsistent, "1 relations that are not this program's")
	f.do(t, 1, "ALTER TABLE shardproxy.stranger RENAME TO cluster; ALTER TABLE shardproxy.cluster OWNER TO app")
	f.refuses(t, "s1", ErrInconsistent, "not this program's")
	f.do(t, 1, "DROP TABLE shardproxy.cluster; SET client_min_messages = error; CREATE TABLE shardproxy.cluster "+
		"(id uuid, database text, shard text, home text, slots int, schema_version int, created_at timestamptz)")
	f.refuses(t, "s1", ErrPrivilege, "permission denied for table cluster")
	f.do(t, 1, "DROP SCHEMA shardproxy CASCADE; ALTER DATABASE "+f.dbs[1].Name+" OWNER TO app")

	f.do(t, 1, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
	f.refuses(t, "s1", ErrPrivilege, "permission denied for function pg_control_system")
	f.do(t, 1, "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")

	// As on a machine of the other byte order.
	f.do(t, 1, `ALTER FUNCTION pg_catalog.uuid_hash_extended(uuid, bigint) RENAME TO good;
		CREATE FUNCTION pg_catalog.uuid_hash_extended(uuid, bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT good($1, $2) + 1'`)
	f.refuses(t, "s1", ErrHash, "uuid_hash_extended")
	f.do(t, 1, "DROP FUNCTION pg_catalog.uuid_hash_extended(uuid, bigint); ALTER FUNCTION pg_catalog.good(uuid, bigint) RENAME TO uuid_hash_extended")
	mustInit(t, f.opts)
}

// TestHashVectors says that every vector is one that matters.
func TestHashVectors(t *testing.T) {
	conn := pgtest.Shared(t).Connect("app")
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if wrong, err := otherHashes(t.Context(), tx); len(wrong) > 0 || err != nil {
		t.Errorf("%q, %v", wrong, err)
	}
}

// TestRefusedCollations makes databases that read or sort text differently.
func TestRefusedCollations(t *testing.T) {
	f := newFleet(t, 2)
	for n, test := range []struct {
		options, other string
		want           []string
	}{
		{"LOCALE 'C' ENCODING 'UTF8'", "LOCALE 'C' ENCODING 'LATIN1'", []string{"encoding is LATIN1, that of shard \"s0\" is UTF8"}},
		{"LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'", "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'", []string{"collation (LC_COLLATE) is C.UTF-8"}},
		{"LOCALE 'C.UTF-8' LC_CTYPE 'C'", "LOCALE 'C.UTF-8'", []string{"character type (LC_CTYPE) is C.UTF-8"}},
		{"LOCALE 'C.UTF-8'", "LOCALE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'sv'", []string{"provider is icu", "locale is sv", "recorded collation version", "library's version"}},
	} {
		for i, options := range []string{test.options, test.other} {
			name := fmt.Sprintf("%s_made_%d", f.dbs[i].Name, n)
			f.do(t, i, "CREATE DATABASE "+name+" OWNER app TEMPLATE template0 "+options)
			t.Cleanup(func() { f.dbs[i].Node.Exec("postgres", "DROP DATABASE "+name+" WITH (FORCE)") })
			f.opts.Shards[i].Connect = to(f.dbs[i].Node.DSN(name, "postgres") + "&role=app")
		}
		_, err := Init(t.Context(), f.opts)
		var all *CheckError
		if !errors.As(err, &all) || len(all.Problems) != len(test.want) {
			t.Errorf("%s: %v, want %q", test.other, err, test.want)
			continue
		}
		for i, p := range all.Problems {
			if p.Kind != ErrUnalike || p.Shard != "s1" || !strings.Contains(p.Reason, test.want[i]) {
				t.Errorf("%s: %v, want %q", test.other, p, test.want[i])
			}
		}
	}
}

// TestRefusedSettings is about settings that need a server of their own, and
// about standbys.
func TestRefusedSettings(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"max_prepared_transactions": "0", "wal_level": "replica"}})
	f := newFleet(t, 2)
	f.opts.Shards[1].Connect = to(c.Primary().DSN("app", "app"))
	r, err := Init(t.Context(), f.opts)
	wantProblem(t, err, "s1", ErrSetting, "max_prepared_transactions is 0")
	if len(r.Warnings) != 2 || !strings.Contains(r.Warnings[1].Reason, "wal_level is replica") || !strings.Contains(r.Warnings[0].Reason, "less than half") {
		t.Errorf("warnings %v", r.Warnings)
	}
	c.Primary().Exec("postgres", "CHECKPOINT")
	f.opts.Shards[1].Connect = to(c.AddReplica(c.Primary()).DSN("app", "app"))
	_, err = Init(t.Context(), f.opts)
	if !errors.Is(err, ErrStandby) || !errors.Is(err, ErrSetting) {
		t.Errorf("standby: %v", err)
	}
	// Alone the shard needs no prepared transactions.
	f.opts.Shards = f.opts.Shards[1:]
	f.opts.Shards[0].Connect = to(c.Primary().DSN("app", "app"))
	if r := mustInit(t, f.opts); len(r.Warnings) != 2 {
		t.Errorf("warnings %v", r.Warnings)
	}
}

// TestRefusedRows is about shards that are not what the configuration says.
func TestRefusedRows(t *testing.T) {
	f := madeFleet(t, 3)
	good := f.opts
	with := func(change func(o *Options)) {
		f.opts = good
		f.opts.Shards = slices.Clone(good.Shards)
		change(&f.opts)
	}
	checks := func(shard string, kind error, text string) {
		t.Helper()
		f.refuses(t, shard, kind, text)
		_, err := Check(t.Context(), f.opts)
		wantProblem(t, err, shard, kind, text)
	}
	with(func(o *Options) { o.Shards = o.Shards[:2] })
	checks("", ErrMismatch, `differ: shard "s2" is gone`)
	_, err := Check(t.Context(), f.opts)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) || !slices.Equal(mismatch.Diff.Removed, []string{"s2"}) || len(mismatch.Diff.Added) > 0 {
		t.Errorf("%v", err)
	}
	fresh := pgtest.Shared(t)
	with(func(o *Options) { o.Shards = append(o.Shards, Shard{Name: "s3", Connect: to(fresh.DSN("app"))}) })
	f.spare(t)
	with(func(o *Options) { o.Shards[2].Name = "s9" })
	_, err = Init(t.Context(), f.opts)
	if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), `differ: shard "s2" is gone`) {
		t.Errorf("renamed: %v", err)
	}
	with(func(o *Options) { o.Shards[2].Connect = to(fresh.DSN("app")) })
	checks("s2", ErrNotInitialised, "the slot map names the shard, but its server has no shardproxy cluster")
	with(func(o *Options) {
		o.Shards[1].Connect, o.Shards[2].Connect = o.Shards[2].Connect, o.Shards[1].Connect
	})
	_, err = Check(t.Context(), f.opts)
	if !errors.Is(err, ErrOtherCluster) || !strings.Contains(err.Error(), `shard "s1": its server is shard "s2" of this cluster`) {
		t.Errorf("exchanged: %v", err)
	}
	with(func(o *Options) { o.Shards[0], o.Shards[1] = o.Shards[1], o.Shards[0] })
	_, err = Check(t.Context(), f.opts)
	if !errors.Is(err, ErrOtherCluster) || strings.Count(err.Error(), `list shard "s0" first`) != 3 {
		t.Errorf("order: %v", err)
	}
	with(func(o *Options) { o.Slots = 128 })
	if _, err = Init(t.Context(), f.opts); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "made with 64 slots, not 128") {
		t.Errorf("slots: %v", err)
	}
	with(func(o *Options) { o.Database = "store" })
	if _, err = Init(t.Context(), f.opts); !errors.Is(err, ErrOtherCluster) || !strings.Contains(err.Error(), `is of the database "shop"`) {
		t.Errorf("database: %v", err)
	}
	with(func(o *Options) { o.Shards[0].Connect = to(fresh.DSN("app")) })
	_, err = Init(t.Context(), f.opts)
	if !errors.Is(err, ErrOtherCluster) || strings.Count(err.Error(), `but the home shard "s0" has no shardproxy cluster`) != 2 {
		t.Errorf("lost home shard: %v", err)
	}
	with(func(*Options) {})
	f.do(t, 1, "UPDATE shardproxy.cluster SET id = gen_random_uuid()")
	checks("s1", ErrOtherCluster, "belongs to another cluster")
	f.do(t, 1, "UPDATE shardproxy.cluster SET id = '"+f.value(0, "SELECT id FROM shardproxy.cluster")+"'; UPDATE shardproxy.epoch SET epoch = 5")
	checks("s1", ErrAhead, "it knows epoch 5, the home shard only 1: the home shard has lost a change")
	f.do(t, 1, "DELETE FROM shardproxy.epoch")
	if s, err := Check(t.Context(), f.opts); err != nil || !slices.Equal(s.Behind, []string{"s1"}) {
		t.Errorf("%+v, %v", s, err)
	}
	if r := mustInit(t, f.opts); !slices.Equal(r.Steps, []Step{{"s1", "stored epoch 1"}}) {
		t.Errorf("%v", r)
	}
	f.do(t, 0, "UPDATE shardproxy.slots SET shard = 's2' WHERE slot = 5; DELETE FROM shardproxy.slots WHERE slot = 6")
	checks("s0", ErrInconsistent, "slot 6 without an owner")
}

// TestUnfinished looks at a cluster whose making was not finished.
func TestUnfinished(t *testing.T) {
	f := madeFleet(t, 2)
	f.do(t, 0, "DELETE FROM shardproxy.slots; DELETE FROM shardproxy.shards; DELETE FROM shardproxy.epoch")
	f.do(t, 1, "DELETE FROM shardproxy.epoch")
	_, err := Check(t.Context(), f.opts)
	wantProblem(t, err, "s0", ErrNotInitialised, "was not finished")
	if r := mustInit(t, f.opts); len(r.Steps) != 2 {
		t.Errorf("%v", r)
	}
	f.drop()
	_, err = Check(t.Context(), f.opts)
	if !errors.Is(err, ErrNotInitialised) || strings.Count(err.Error(), "shardproxy init") != 2 {
		t.Errorf("%v", err)
	}
}

func TestInvalidOptions(t *testing.T) {
	two := []Shard{{Name: "a"}, {Name: "b"}}
	for text, o := range map[string]Options{
		"power of two":            {Database: "shop", Slots: 100, Shards: two},
		"has no name":             {Database: "shop", Shards: []Shard{{}}},
		"named twice":             {Database: "shop", Shards: []Shard{two[0], two[0]}},
		"0 shards":                {Database: "shop"},
		"weight -1":               {Database: "shop", Shards: []Shard{{Name: "a", Weight: -1}}},
		"database has no name":    {Shards: two},
		"2 shards for 1 slots":    {Database: "shop", Slots: 1, Shards: two},
		"want 1 to 65536, is -64": {Database: "shop", Slots: -64, Shards: two},
	} {
		r, err := Init(t.Context(), o)
		if !errors.Is(err, ErrInvalid) || r == nil {
			t.Errorf("%s: %v", text, err)
		} else if !strings.Contains(err.Error(), text) && text != "want 1 to 65536, is -64" {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := Check(t.Context(), o); !errors.Is(err, ErrInvalid) {
			t.Errorf("Check: %s: %v", text, err)
		}
	}
}

// TestAllAtOnce wants every problem of every shard in one error, in order.
func TestAllAtOnce(t *testing.T) {
	f := newFleet(t, 4)
	f.do(t, 0, "ALTER DATABASE "+f.dbs[0].Name+" OWNER TO postgres")
	f.opts.Shards[1].Connect = nil
	f.opts.Shards[2].Connect = f.opts.Shards[0].Connect
	f.do(t, 3, "CREATE SCHEMA shardproxy")
	_, err := Init(t.Context(), f.opts)
	var all *CheckError
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range all.Problems {
		got = append(got, p.Shard+": "+p.Kind.Error())
	}
	want := []string{"s0: missing privilege", "s1: unreachable", "s2: missing privilege", "s2: same database twice", "s3: missing privilege"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if !strings.HasPrefix(err.Error(), "5 problems:\n") || len(strings.Split(err.Error(), "\n")) != 6 {
		t.Error(err)
	}
}

// TestJudge is about servers that this machine does not have.
func TestJudge(t *testing.T) {
	plain := facts{version: 150004, encoding: "UTF8", collate: "C", ctype: "C", provider: "libc", datetimes: "on",
		prepared: 100, connections: 100, walLevel: "logical", mayCreate: true, system: 1}
	for _, test := range []struct {
		change       func(*facts)
		kind         error
		text         string
		making, late bool // a warning when a cluster is made, and later
	}{
		{func(f *facts) { f.version = 120010 }, ErrSetting, "PostgreSQL 12 is not supported", false, false},
		{func(f *facts) { f.version = 190000 }, ErrSetting, "PostgreSQL 19 is not supported", false, false},
		{func(f *facts) { f.version = 160001 }, ErrUnalike, "major version is 16, that of shard \"s0\" is 15", false, true},
		{func(f *facts) { f.library = "2.36" }, ErrUnalike, "library's version is 2.36, that of shard \"s0\" is none", false, true},
		{func(f *facts) { f.collation, f.library = "2.31", "2.36" }, ErrSetting, "made with version 2.31", true, true},
		{func(f *facts) { f.datetimes = "off" }, ErrSetting, "integer_datetimes", false, false},
		{func(f *facts) { f.prepared = 0 }, ErrSetting, "max_prepared_transactions is 0", false, false},
		{func(f *facts) { f.prepared = 49 }, ErrSetting, "less than half", true, true},
		{func(f *facts) { f.prepared = 50 }, nil, "", true, true},
		{func(f *facts) { f.walLevel = "replica" }, ErrSetting, "wal_level is replica", true, true},
		{func(f *facts) { f.standby = true }, ErrStandby, "standby", false, false},
		{func(f *facts) { f.system = 1; f.databaseOID = 0 }, ErrSameDatabase, "physical copy", false, false},
		{func(f *facts) { f.err = errors.New("gone") }, ErrUnreachable, "gone", false, true},
	} {
		for _, making := range []bool{true, false} {
			home, other := plain, plain
			home.shard, other.shard, other.system = "s0", "s1", 2
			test.change(&other)
			j := &judge{making: making, known: Version, all: []*facts{&home, &other}}
			j.servers()
			warning := test.late
			if making {
				warning = test.making
			}
			found := false
			for _, p := range j.problems {
				if p.Shard == "s1" && p.Kind == test.kind && strings.Contains(p.Reason, test.text) && p.Warning == warning && p.Hint != "" {
					found = true
				}
			}
			if found != (test.kind != nil) || test.kind == nil && len(j.problems) > 0 {
				t.Errorf("%s (making %t): %v", test.text, making, j.problems)
			}
		}
	}
}

// TestUnreachableLater wants Check to go on without a shard, but not without
// the home shard, and CheckShard to look at it later.
func TestUnreachableLater(t *testing.T) {
	f := madeFleet(t, 3)
	good := f.opts
	f.opts.Shards = slices.Clone(good.Shards)
	f.opts.Shards[1].Connect = nil
	s, err := Check(t.Context(), f.opts)
	if err != nil || !slices.Equal(s.Unchecked, []string{"s1"}) || len(s.Behind) > 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	conn := f.dbs[1].Connect("app")
	if epoch, err := CheckShard(t.Context(), conn, &s.Cluster, "s1", s.Map.Epoch()); epoch != 1 || err != nil {
		t.Errorf("%d, %v", epoch, err)
	}
	_, err = CheckShard(t.Context(), conn, &s.Cluster, "s2", s.Map.Epoch())
	wantProblem(t, err, "s2", ErrOtherCluster, `is shard "s1"`)
	f.do(t, 1, "UPDATE shardproxy.epoch SET epoch = 2")
	_, err = CheckShard(t.Context(), conn, &s.Cluster, "s1", s.Map.Epoch())
	wantProblem(t, err, "s1", ErrAhead, "knows epoch 2")
	f.do(t, 1, "DROP SCHEMA shardproxy CASCADE")
	_, err = CheckShard(t.Context(), conn, &s.Cluster, "s1", s.Map.Epoch())
	wantProblem(t, err, "s1", ErrNotInitialised, "no shardproxy cluster")
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = CheckShard(t.Context(), conn, &s.Cluster, "s1", s.Map.Epoch())
	wantProblem(t, err, "s1", ErrUnreachable, "conn closed")

	f.opts.Shards = slices.Clone(good.Shards)
	f.opts.Shards[0].Connect = nil
	_, err = Check(t.Context(), f.opts)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("without the home shard: %v", err)
	}
}
