package metadata

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

func TestInit(t *testing.T) {
	all := newFleet(t, 4)
	for _, shards := range []int{1, 2, 4} {
		all.drop()
		f := &fleet{dbs: all.dbs[:shards], opts: all.opts}
		f.opts.Shards, f.opts.Slots = f.opts.Shards[:shards], 0
		planned := f.opts
		planned.DryRun = true
		plan := mustInit(t, planned)
		if f.dbs[0].Value("SELECT count(*) FROM pg_namespace WHERE nspname = 'shardproxy'") != "0" {
			t.Fatal("the dry run wrote")
		}
		first := mustInit(t, f.opts)
		if !slices.Equal(plan.Steps, first.Steps) || !plan.Map.Equal(first.Map) {
			t.Errorf("planned %v, did %v", plan, first)
		}
		if len(first.Steps) != 2*shards {
			t.Errorf("%d shards: %d steps:\n%v", shards, len(first.Steps), first)
		}
		proposed, err := f.opts.propose(shardmap.DefaultSlots)
		if err != nil {
			t.Fatal(err)
		}
		if d := proposed.Diff(first.Map).String(); d != "" || first.Map.Epoch() != 1 {
			t.Errorf("the map differs from what was proposed: %s", d)
		}
		for i, db := range f.dbs {
			want := strings.Join([]string{first.Cluster.ID, "shop", f.opts.Shards[i].Name, "s0", "4096", fmt.Sprint(Version), "1"}, "|")
			got := pgtest.Lines(db.Rows("SELECT id, database, shard, home, slots, schema_version, epoch FROM shardproxy.cluster, shardproxy.epoch"))
			if !slices.Equal(got, []string{want}) {
				t.Errorf("rows %q, want %q", got, want)
			}
			if has := db.Value("SELECT to_regclass('shardproxy.slots') IS NOT NULL") == "t"; has != (i == 0) {
				t.Errorf("shard %d: table slots: %t", i, has)
			}
		}
		before := f.state()
		second := mustInit(t, f.opts)
		if len(second.Steps) != 0 || !strings.Contains(second.String(), "nothing to do") || f.state() != before {
			t.Errorf("the second run did\n%v", second)
		}
		if second.Cluster != first.Cluster || !second.Map.Equal(first.Map) {
			t.Errorf("the second run found %+v, the first %+v", second.Cluster, first.Cluster)
		}
		if second.Cluster.CreatedAt.IsZero() || len(second.Cluster.ID) != 36 {
			t.Errorf("cluster %+v", second.Cluster)
		}
	}
}

// TestRights looks at what others may see, and at the tables' owner and comments.
func TestRights(t *testing.T) {
	f := newFleet(t, 2)
	// Rights that new tables would have by default are taken away too.
	f.dbs[0].Exec("ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT ALL ON SCHEMAS TO PUBLIC")
	mustInit(t, f.opts)
	for i, db := range f.dbs {
		public := db.Rows(`SELECT c.relname, a.privilege_type FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
			WHERE n.nspname = 'shardproxy' AND a.grantee = 0
			UNION ALL SELECT n.nspname, a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'shardproxy' AND a.grantee = 0
			UNION ALL SELECT p.proname, a.privilege_type FROM pg_proc p, aclexplode(p.proacl) a WHERE p.pronamespace = 'shardproxy'::regnamespace AND a.grantee = 0
			ORDER BY 1, 2`)
		if got := pgtest.Lines(public); !slices.Equal(got, []string{"decide|EXECUTE", "enter|EXECUTE", "hidden|SELECT", "shardproxy|USAGE", "take_part|EXECUTE", "unique_id|EXECUTE"}) {
			t.Errorf("PUBLIC has the rights %q", got)
		}
		tables := db.Rows(`SELECT c.relname, pg_get_userbyid(c.relowner), obj_description(c.oid) IS NOT NULL FROM pg_class c
			WHERE c.relnamespace = 'shardproxy'::regnamespace AND c.relkind = 'r' ORDER BY 1`)
		want := []string{"acknowledged|app|t", "cluster|app|t", "commits|app|t", "ddl|app|t", "ddl_shard|app|t", "epoch|app|t", "fences|app|t", "hidden|app|t", "maker|app|t", "move_progress|app|t", "moves|app|t", "parts|app|t", "proxies|app|t", "restore_points|app|t", "rules|app|t", "shards|app|t", "slots|app|t"}
		if i > 0 {
			want = []string{want[1], want[2], want[5], want[6], want[7], want[8], want[9], want[11]}
		}
		if got := pgtest.Lines(tables); !slices.Equal(got, want) {
			t.Errorf("tables %q, want %q", got, want)
		}
		if got := db.Value("SELECT obj_description('shardproxy'::regnamespace)"); !strings.Contains(got, "slot map") {
			t.Errorf("comment %q", got)
		}
	}
}

// TestSchemaMadeBefore gives the control user no right but an empty schema, and
// has a superuser run Init: the owner is the schema's.
func TestSchemaMadeBefore(t *testing.T) {
	f := newFleet(t, 2)
	for i, db := range f.dbs {
		db.Exec("CREATE SCHEMA shardproxy AUTHORIZATION app; ALTER DATABASE " + db.Name + " OWNER TO postgres")
		if i == 0 {
			f.opts.Shards[i].Connect = to(db.DSN("postgres"))
		}
	}
	mustInit(t, f.opts)
	for _, db := range f.dbs {
		if got := db.Value("SELECT tableowner FROM pg_tables WHERE schemaname = 'shardproxy' AND tablename = 'epoch'"); got != "app" {
			t.Errorf("owner %s", got)
		}
	}
	f.opts.Shards[0].Connect = to(f.dbs[0].DSN("app"))
	if s, err := Check(t.Context(), f.opts); err != nil || len(s.Behind) > 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestHostileSettings runs Init, Load and Change under settings of a role that
// would change what statements mean.
func TestHostileSettings(t *testing.T) {
	f := newFleet(t, 2)
	for _, db := range f.dbs {
		db.Exec(`CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; CREATE DOMAIN evil.text AS varchar(3);
			CREATE FUNCTION evil.to_regclass(pg_catalog.text) RETURNS regclass LANGUAGE sql AS 'SELECT NULL::regclass';
			CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT '-infinity'::timestamptz$$`)
		for _, setting := range []string{"search_path = evil, pg_catalog", "DateStyle = 'German'",
			"default_transaction_isolation = 'serializable'", "synchronous_commit = off", "IntervalStyle = sql_standard", "bytea_output = escape", "default_transaction_read_only = on"} {
			db.Exec("ALTER DATABASE " + db.Name + " SET " + setting)
		}
	}
	first := mustInit(t, f.opts)
	if second := mustInit(t, f.opts); len(second.Steps) > 0 || second.Cluster.CreatedAt.Year() < 2020 {
		t.Errorf("%+v %v", second.Cluster, second)
	}
	next, err := shardmap.ProposeChange(first.Map, []shardmap.Member{{Name: "s0"}, {Name: "s1", Weight: 3}})
	if err != nil {
		t.Fatal(err)
	}
	if err := Change(t.Context(), f.dbs[0].Connect("app"), 1, next); err != nil {
		t.Error(err)
	}
	if err := SpreadEpoch(t.Context(), &first.Cluster, f.opts.Shards, 2); err != nil {
		t.Error(err)
	}
}

// TestTwoInits runs two at once: one makes the cluster, the other finds it.
func TestTwoInits(t *testing.T) {
	f := newFleet(t, 2)
	for range 3 {
		f.drop()
		reports := make([]*Report, 4)
		errs := make([]error, len(reports))
		var group sync.WaitGroup
		for i := range reports {
			group.Go(func() { reports[i], errs[i] = Init(t.Context(), f.opts) })
		}
		group.Wait()
		working := 0
		for i, r := range reports {
			if errs[i] != nil || r.Cluster.ID != reports[0].Cluster.ID {
				t.Errorf("%+v, %v", r, errs[i])
			}
			if len(r.Steps) > 0 {
				working++
			}
		}
		if working != 1 {
			t.Errorf("%d runs wrote, want 1", working)
		}
	}
}

func TestWeights(t *testing.T) {
	f := newFleet(t, 2)
	f.opts.Shards[1].Weight = 3
	if r := mustInit(t, f.opts); !slices.Equal(r.Map.Counts(), []int{16, 48}) {
		t.Errorf("slots %v", r.Map.Counts())
	}
}

// TestDocumentedSQL runs the statements that the design page gives to operators.
func TestDocumentedSQL(t *testing.T) {
	page, err := os.ReadFile("../docs/design/metadata.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```sql\n")
	block, _, _ = strings.Cut(block, "```")
	f := madeFleet(t, 2)
	f.do(t, 0, "CREATE TABLE orders (customer_id bigint)")
	rows := 0
	for statement := range strings.SplitSeq(block, ";") {
		statement = strings.ReplaceAll(statement, "...", "1, 2")
		tag, err := f.root[0].Exec(t.Context(), statement)
		if err != nil {
			t.Errorf("%s: %v", statement, err)
		}
		rows += int(tag.RowsAffected())
	}
	if rows != 1+2+1+1+1 {
		t.Errorf("%d rows", rows)
	}
}
