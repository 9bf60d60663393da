package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"shardproxy/failover"
)

// TestViewsKeepTheirTypes: every value is of its column's type, or the console
// would panic on a client's request.
func TestViewsKeepTheirTypes(t *testing.T) {
	s := newSite(t)
	for _, v := range views() {
		rows := v.rows(s.Console)
		if none := strings.HasPrefix(v.doc, "Nothing"); none != (len(rows) == 0) {
			t.Errorf("SHOW %s has no rows to test with", v.name)
		}
		for _, row := range rows {
			if len(row) != len(v.columns) {
				t.Fatalf("SHOW %s: %d values for %d columns", v.name, len(row), len(v.columns))
			}
			for i, value := range row {
				isText := v.columns[i].typ.oid == pgtype.TextOID
				switch value.(type) {
				case nil:
				case string:
					if !isText {
						t.Errorf("SHOW %s: %s is text", v.name, v.columns[i].name)
					}
				case int64:
					if isText {
						t.Errorf("SHOW %s: %s is a number", v.name, v.columns[i].name)
					}
				default:
					t.Errorf("SHOW %s: %s is a %T", v.name, v.columns[i].name, value)
				}
			}
		}
	}
}

// shown returns the row of a SHOW whose column key has the value, as text by column.
func shown(t *testing.T, s *site, name, key, value string) map[string]string {
	t.Helper()
	for _, v := range views() {
		if v.name != name {
			continue
		}
		for _, row := range v.rows(s.Console) {
			m := map[string]string{}
			for i, c := range v.columns {
				m[c.name] = "NULL"
				if row[i] != nil {
					m[c.name] = fmt.Sprint(row[i])
				}
			}
			if m[key] == value {
				return m
			}
		}
	}
	t.Fatalf("SHOW %s has no row with %s = %s", name, key, value)
	return nil
}

func expect(t *testing.T, row map[string]string, want string) {
	t.Helper()
	for pair := range strings.SplitSeq(want, "; ") {
		k, v, _ := strings.Cut(pair, "=")
		if got, there := row[k]; got != v || !there {
			t.Errorf("%s is %q, want %q", k, got, v)
		}
	}
}

func TestShowRows(t *testing.T) {
	s := newSite(t)
	if n := len(showPools(s.Console)); n != 2 { // app, and eve who has clients only
		t.Errorf("SHOW POOLS has %d rows", n)
	}
	expect(t, shown(t, s, "POOLS", "user", "app"), "database=shop; cl_active=2; cl_waiting=1; sv_active=5; sv_idle=6; sv_tested=3; sv_login=3; "+
		"maxwait=1; maxwait_us=250001; pool_mode=transaction; load_balance_hosts=NULL; cl_held=0; nodes=2; pool_size=20")
	expect(t, shown(t, s, "POOLS", "user", "eve\xff"), "cl_active=0; cl_waiting=1; cl_held=1; maxwait=9; maxwait_us=0; pool_mode=NULL")
	expect(t, shown(t, s, "CLIENTS", "id", "2"), "type=C; user=app; database=shop; replication=none; state=active; addr=192.0.2.9; port=40000; "+
		"local_addr=192.0.2.1; local_port=6432; connect_time=2026-03-04 05:05:07 UTC; request_time=2026-03-04 05:06:06 UTC; wait=0; wait_us=0; "+
		"ptr=c2; link=s31; remote_pid=0; tls=TLS 1.3/TLS_AES_128_GCM_SHA256; application_name=web; prepared_statements=2; detail=active; pinned=temporary table; pid=12")
	expect(t, shown(t, s, "CLIENTS", "id", "1"), "state=idle; addr=unix; port=0; local_addr=NULL; local_port=NULL; link=; pinned=NULL")
	expect(t, shown(t, s, "CLIENTS", "id", "3"), "state=waiting; addr=2001:db8::1; port=5; wait=1; wait_us=250000; detail=waiting")
	expect(t, shown(t, s, "CLIENTS", "id", "4"), "state=waiting; wait=9; detail=held")
	expect(t, shown(t, s, "SERVERS", "id", "31"), "type=S; state=active; addr=10.0.0.1; port=5432; link=c2; remote_pid=4711; tls=on; node=10.0.0.1:5432")
	expect(t, shown(t, s, "SERVERS", "state", "new"), "id=0; ptr=; connect_time=2026-03-04 05:06:07 UTC; request_time=2026-03-04 05:06:07 UTC")
	expect(t, shown(t, s, "SERVERS", "id", "30"), "state=idle; link=; local_addr=10.0.0.9; local_port=50000; tls=")
	expect(t, shown(t, s, "NODES", "node", "10.0.0.1:5432"), "database=shop; shard=s0; role=primary; health=up; reason=NULL; takes_writes=1; lag_bytes=NULL; "+
		"lag_ms=NULL; timeline=3; lsn=1/A28; system_identifier=7300000000000000001; probe_us=1500; sv_active=3; sv_idle=2; cl_waiting=1; last_error=NULL")
	expect(t, shown(t, s, "NODES", "node", "10.0.0.2:5432"), "role=replica; banned=1; takes_writes=0; lag_bytes=4096; lag_ms=250; sv_active=2; sv_idle=4; sv_tested=2; sv_login=2")
	expect(t, shown(t, s, "NODES", "node", "replica.example:5433"), "role=unknown; health=down; reason=does not answer; since=NULL; timeline=NULL; lsn=NULL; "+
		"last_error=connection refused; last_error_at=2026-03-04 05:06:06 UTC; banned=0")
	expect(t, shown(t, s, "TABLES", "table", "orders"), "database=shop; schema=public; kind=sharded; placement=hash; key=land, id; key_types=text, bigint; colocation=3; problem=NULL")
	expect(t, shown(t, s, "TABLES", "table", "odd"), "kind=unknown; placement=none; key=NULL; key_types=NULL; colocation=NULL; problem=has no column x")
	expect(t, shown(t, s, "TWOPC", "shard", "s1"), "database=shop; name=shardproxy:c:s0:r:1; owner=app; age=90; reason=there is no decision yet")
	expect(t, shown(t, s, "SHARDS", "shard", "s0"), "database=shop; home=1; state=member; slots=3996; slots_held=20; slots_coming=0; slots_going=4; primary=10.0.0.1:5432; "+
		"why=NULL; nodes=3; nodes_up=2; lag_max_ms=250; sv_active=5; sv_idle=6; cl_waiting=1; held=0; held_max_ms=0; in_doubt=0")
	expect(t, shown(t, s, "SHARDS", "shard", "only"), "database=My-Db.2; state=alone; slots=NULL; slots_held=NULL; primary=NULL; why=nobody says to be one; held=12; held_max_ms=1500; breaker=half-open; breaker_refused=17")
	expect(t, shown(t, s, "SLOTS", "first_slot", "100"), "database=shop; last_slot=119; slots=20; shard=s0; held=1; epoch=12")
	expect(t, shown(t, s, "MOVES", "id", "7"), "database=shop; kind=slots; source=s0; target=s1; slots=4; slot_ranges=100-102, 119; phase=following; paused=1; abort=0; reversible=0; wanted=NULL; back=0; verified=0; "+
		"rows=5000; percent=85; rows_copied=4999; rows_purged=0; said=NULL; planned_at=2026-03-04 05:05:07 UTC; changed_at=2026-03-04 05:06:06 UTC")
	expect(t, shown(t, s, "MOVES", "id", "8"), "kind=leave; slots=0; slot_ranges=NULL; rows=NULL")
	expect(t, shown(t, s, "MOVE_HISTORY", "id", "6"), "phase=aborted; abort=1; said=given up")
	expect(t, shown(t, s, "PROXIES", "proxy", "me"), "self=1; present=1; epoch=12; writes_epoch=12; statements_epoch=11; told_ms=250; shards=s0, s1")
	expect(t, shown(t, s, "PROXIES", "proxy", "other"), "self=0; present=0; told_ms=3600000; shards=")
	expect(t, shown(t, s, "BLOCKS", "refused", "3"), "database=shop; fingerprint=00000000000000fe; statement=select 0; blocked_by=NULL; since=2026-03-04 05:06:07 UTC; until=NULL")
	expect(t, shown(t, s, "BLOCKS", "refused", "4"), "database=shop; fingerprint=00000000000000ff; statement=NULL; blocked_by=admin; until=2026-03-04 06:06:07 UTC")
	expect(t, shown(t, s, "GATES", "gate", "slots"), "database=shop; shard=NULL; closed=1; draining=0; reason=slots are moving; closed_since=2026-03-04 05:06:06 UTC; held=3; held_limit=1000; held_max_ms=200; "+
		"closed_count=2; held_count=9; released_count=4; timed_out_count=1; evicted_count=1; cancelled_count=0; refused_count=5; held_ms=3000; held_longest_ms=1500")
	expect(t, shown(t, s, "GATES", "shard", "only"), "database=My-Db.2; gate=shard; closed=1; reason=no primary; held=12; held_max_ms=1500; closed_since=NULL")
	expect(t, shown(t, s, "EVENTS", "id", "41"), "at=2026-03-04 05:06:07.000 UTC; level=WARN; event=shard has no primary, writes are held; database=shop; shard=s0; node=NULL; detail=reason=\"is down\"")
	expect(t, shown(t, s, "EVENTS", "id", "42"), "level=INFO; database=NULL; detail=NULL")
	expect(t, shown(t, s, "SETTINGS", "setting", "admin.address"), "value=127.0.0.1:9127; default=127.0.0.1:9127; changed=0; needs_restart=1")
	expect(t, shown(t, s, "SETTINGS", "setting", "users[app].password"), "value=***; default=NULL; changed=1; needs_restart=0")
	expect(t, shown(t, s, "DATABASES", "name", "shop"), "host=10.0.0.1; port=5432; database=shopdb; force_user=NULL; pool_size=20; min_pool_size=2; "+
		"reserve_pool_size=1; server_lifetime=3600; pool_mode=transaction; max_connections=100; current_connections=17; max_client_connections=500; "+
		"current_client_connections=4; paused=0; disabled=0; shards=1; shards_without_primary=0; held=0; held_max_ms=0; why=NULL")
	expect(t, shown(t, s, "DATABASES", "name", "My-Db.2"), "host=NULL; port=NULL; force_user=proxy; shards_without_primary=1; held=12; held_max_ms=1500; "+
		"why=only: nobody says to be one")
	expect(t, shown(t, s, "STATS_TOTALS", "database", "shop"), "server_assignment_count=850; xact_count=800; query_count=900; bytes_received=123456789012; "+
		"bytes_sent=98765; xact_time=1600000; query_time=900000; wait_time=1500000; client_parse_count=40; server_parse_count=8; bind_count=320; "+
		"read_count=700; replica_read_count=600; error_count=5; retry_count=4")
	expect(t, shown(t, s, "STATS_TOTALS", "database", "My-Db.2"), "xact_count=0; xact_time=0; bind_count=0")
	expect(t, shown(t, s, "TOTALS", "name", "total_xact_count"), "value=800")
	expect(t, shown(t, s, "TOTALS", "name", "total_client_bytes"), "value=123456789012")
	expect(t, shown(t, s, "TOTALS", "name", "total_ps_bind_count"), "value=320")
	expect(t, shown(t, s, "LISTS", "list", "used_clients"), "items=4")
	expect(t, shown(t, s, "LISTS", "list", "login_clients"), "items=2")
	expect(t, shown(t, s, "LISTS", "list", "used_servers"), "items=17")
	expect(t, shown(t, s, "LISTS", "list", "users"), "items=2")
	expect(t, shown(t, s, "LISTS", "list", "pools"), "items=2")
	expect(t, shown(t, s, "CONFIG", "key", "max_client_conn"), "value=10000; default=10000; changeable=yes")
	expect(t, shown(t, s, "CONFIG", "key", "max_user_connections"), "value=0")
	expect(t, shown(t, s, "CONFIG", "key", "admin.address"), "changeable=no")
	expect(t, shown(t, s, "CONFIG", "key", "users[app].password"), "value=***; default=NULL")
	shown(t, s, "VERSION", "version", "PgBouncer 1.25.1 console of shardproxy 0.9.1")
}

func TestShowState(t *testing.T) {
	s := newSite(t)
	state := func(want string) {
		t.Helper()
		for pair := range strings.SplitSeq(want, "; ") {
			k, v, _ := strings.Cut(pair, "=")
			expect(t, shown(t, s, "STATE", "key", k), "value="+v)
		}
	}
	state("active=yes; paused=no; suspended=no; draining=no; listening=yes")
	s.world.databases[0].Paused = true
	state("active=yes; paused=no")
	s.world.databases[1].Paused = true
	state("active=no; paused=yes")
	s.world.databases[0].Paused = false
	s.world.process.Draining, s.world.process.Listening = true, false
	state("active=no; paused=no; draining=yes; listening=no")
}

func TestBinaryNumeric(t *testing.T) {
	for _, n := range []int64{0, 1, -1, 9999, 10000, 10001, 100000000, 123456789012, -98765432109876, 1<<63 - 1, -1 << 63} {
		var got pgtype.Numeric
		if err := pgtype.NewMap().Scan(pgtype.NumericOID, pgtype.BinaryFormatCode, binaryNumeric(n), &got); err != nil {
			t.Fatal(err)
		}
		back, err := got.Int64Value()
		if err != nil || back.Int64 != n {
			t.Errorf("%d was read as %v, %v", n, back.Int64, err)
		}
	}
}

// TestShardWithoutPrimary keeps Primary from indexing with NoNode.
func TestShardWithoutPrimary(t *testing.T) {
	sh := Shard{Nodes: &failover.Snapshot{Primary: failover.NoNode}}
	if sh.Primary() != nil {
		t.Error("a primary where there is none")
	}
}
