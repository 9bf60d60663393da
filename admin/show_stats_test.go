package admin

import (
	"testing"
	"time"

	"shardproxy/proxy"
)

// TestAverages: they are of the time since the period before the last one ended, and since the start before there is one.
func TestAverages(t *testing.T) {
	s := newSite(t)
	now := clockAt()
	s.opt.Clock = func() time.Time { return now }
	s.world.process.Started = now.Add(-100 * time.Second)
	shop := "xact_count=8; query_count=9; bytes_received=1234567890; bytes_sent=987; xact_time=2000; query_time=1000; server_assignment_count=8; wait_time=1764; avg_bind_count=3"
	expect(t, shown(t, s, "STATS_AVERAGES", "database", "shop"), shop)
	expect(t, shown(t, s, "STATS", "database", "shop"), "total_xact_count=800; total_query_count=900; total_received=123456789012; total_sent=98765; total_wait_time=1500000; "+
		"total_server_assignment_count=850; total_query_time=900000; avg_xact_count=8; avg_query_count=9; avg_recv=1234567890; avg_sent=987; avg_wait_time=1764; avg_xact_time=2000; avg_query_time=1000; avg_server_assignment_count=8")
	expect(t, shown(t, s, "TOTALS", "name", "avg_query_count"), "value=9")
	expect(t, shown(t, s, "TOTALS", "name", "avg_client_bytes"), "value=1234567890")
	expect(t, shown(t, s, "TOTALS", "name", "avg_query_time"), "value=1000")
	expect(t, shown(t, s, "TOTALS", "name", "total_read_count"), "value=700")

	count := func(statements int64) {
		s.world.mu.Lock()
		defer s.world.mu.Unlock()
		s.world.databases[0].Totals.Statements = statements
	}
	s.EndPeriod() // 900 statements
	now = now.Add(StatsPeriod)
	count(1500)
	expect(t, shown(t, s, "STATS_AVERAGES", "database", "shop"), "query_count=9") // 1500 in 160 s
	s.EndPeriod()
	expect(t, shown(t, s, "STATS_AVERAGES", "database", "shop"), "query_count=10; xact_count=0; wait_time=0") // 600 in 60 s
	now = now.Add(StatsPeriod / 2)
	count(3600)
	expect(t, shown(t, s, "STATS_AVERAGES", "database", "shop"), "query_count=30") // 2700 in 90 s
	expect(t, shown(t, s, "TOTALS", "name", "avg_query_count"), "value=30")
	s.world.mu.Lock()
	s.world.databases[0].Totals = proxy.DatabaseTotals{Statements: 180} // a reload took it away and brought it again
	s.world.mu.Unlock()
	expect(t, shown(t, s, "STATS_AVERAGES", "database", "shop"), "query_count=2; xact_count=0")
	expect(t, shown(t, s, "TOTALS", "name", "avg_query_count"), "value=2")
	s.world.mu.Lock()
	s.world.databases = nil
	s.world.mu.Unlock()
	expect(t, shown(t, s, "TOTALS", "name", "total_query_count"), "value=0")
}

func TestShowUsersAndSockets(t *testing.T) {
	s := newSite(t)
	expect(t, shown(t, s, "USERS", "name", "app"), "pool_size=30; reserve_pool_size=; pool_mode=session; max_user_connections=40; current_connections=17; max_user_client_connections=50; current_client_connections=3")
	expect(t, shown(t, s, "USERS", "name", "ops"), "pool_size=; pool_mode=NULL; max_user_connections=0; current_connections=0; current_client_connections=0")
	s.world.process.MaxClientsPerUser = 77
	expect(t, shown(t, s, "USERS", "name", "eve\xff"), "pool_size=; current_client_connections=1; max_user_client_connections=77")
	states := map[string]int{}
	for _, row := range showSockets(s.Console) {
		states[row[stateAt].(string)]++
	}
	if len(states) != 5 || states["sv_login"] != 1 || states["cl_active"] != 2 || states["cl_waiting"] != 2 || states["sv_active"] != 1 || states["sv_idle"] != 1 {
		t.Error(states)
	}
	var active []any
	for _, row := range showActiveSockets(s.Console) {
		active = append(active, row[stateAt-4], row[stateAt], row[stateAt+16])
	}
	if len(active) != 12 { // three clients, and the server that one of them holds
		t.Error(active)
	}
	expect(t, shown(t, s, "SOCKETS", "ptr", "s31"), "type=S; state=sv_active; link=c2; close_needed=1; recv_pos=NULL; send_avail=NULL; id=31")
	expect(t, shown(t, s, "SERVERS", "ptr", "s31"), "close_needed=1")
	expect(t, shown(t, s, "SERVERS", "ptr", "s30"), "close_needed=0")
	sum := int64(0)
	for _, row := range showMemory(s.Console) {
		if n := row[4].(int64); row[0] == "total" && n != sum || n <= 0 {
			t.Errorf("%v, the sum is %d", row, sum)
		} else {
			sum += n
		}
	}
}
