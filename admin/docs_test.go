package admin

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// checkPage compares what stands between two markers of a manual page with
// what the code says; with -update it is written anew.
func checkPage(t *testing.T, path, name, want string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	head, rest, ok := strings.Cut(string(data), begin)
	got, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no part %s", path, name)
	}
	if got == want {
		return
	}
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	has, says := lines(got), lines(want)
	for l := range says {
		if !has[l] {
			t.Errorf("%s lacks: %s", path, l)
		}
	}
	for l := range has {
		if !says[l] {
			t.Errorf("%s says what is not so: %s", path, l)
		}
	}
	t.Errorf("%s differs from the code (go test ./admin -update writes it)", path)
}

func lines(s string) map[string]bool {
	m := map[string]bool{}
	for l := range strings.Lines(s) {
		m[strings.TrimSuffix(l, "\n")] = true
	}
	return m
}

// cell keeps a text from ending its cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// TestConsolePage: docs/console.md names every command, who may run it, and
// every column with its type, in order.
func TestConsolePage(t *testing.T) {
	var commands, columns strings.Builder
	commands.WriteString("\n| command | who | what it does |\n| --- | --- | --- |\n")
	for _, c := range newCommands().all {
		who := "all"
		if c.needs != mayLook {
			who = "admin"
		}
		fmt.Fprintf(&commands, "| `%s` | %s | %s |\n", cell(c.usage), who, cell(c.doc))
	}
	commands.WriteString("\n")
	all := append(views(), view{name: "PREPARED", doc: showPrepared().doc, columns: showPrepared().columns},
		view{name: "HOT_KEYS", doc: showHotKeys().doc, columns: showHotKeys().columns})
	for _, v := range all {
		fmt.Fprintf(&columns, "\n### SHOW %s\n\n%s\n\n| column | type | meaning |\n| --- | --- | --- |\n", v.name, v.doc)
		for _, c := range v.columns {
			if c.doc == "" {
				t.Errorf("SHOW %s: column %s is not defined", v.name, c.name)
			}
			fmt.Fprintf(&columns, "| `%s` | %s | %s |\n", c.name, c.typ.name, cell(c.doc))
		}
	}
	columns.WriteString("\n")
	checkPage(t, "../docs/console.md", "commands", commands.String())
	checkPage(t, "../docs/console.md", "columns", columns.String())
}

// TestPgBouncerColumns: the columns of PgBouncer 1.25 come first and in its
// order; tools read some by their place.
func TestPgBouncerColumns(t *testing.T) {
	const sockets = "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us " +
		"close_needed ptr link remote_pid tls application_name prepared_statements id"
	const debug = " recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail"
	want := map[string]string{
		"SOCKETS": sockets + debug, "ACTIVE_SOCKETS": sockets + debug,
		"USERS": "name pool_size reserve_pool_size pool_mode max_user_connections current_connections max_user_client_connections current_client_connections",
		"STATS": "database total_server_assignment_count total_xact_count total_query_count total_received total_sent total_xact_time total_query_time total_wait_time " +
			"total_client_parse_count total_server_parse_count total_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time " +
			"avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
		"STATS_AVERAGES": "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time " +
			"avg_client_parse_count avg_server_parse_count avg_bind_count",
		"MEM": "name size used free memtotal", "DNS_HOSTS": "hostname ttl addrs", "DNS_ZONES": "zonename serial count", "PEERS": "peer_id host port pool_size",
		"PEER_POOLS": "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login",
		"POOLS": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled " +
			"sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
		"CLIENTS": sockets, "SERVERS": sockets,
		"DATABASES": "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode load_balance_hosts " +
			"max_connections current_connections max_client_connections current_client_connections paused disabled",
		"STATE": "key value", "VERSION": "version", "CONFIG": "key value default changeable", "LISTS": "list items",
		"STATS_TOTALS": "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time " +
			"client_parse_count server_parse_count bind_count",
		"TOTALS": "name value",
	}
	ours := map[string]bool{"NODES": true, "TABLES": true, "TWOPC": true, "SHARDS": true, "SLOTS": true, "MOVES": true, "GATES": true, "EVENTS": true, "SETTINGS": true, "MOVE_HISTORY": true, "PROXIES": true, "QUERIES": true, "CACHE": true, "HOT": true, "PLANS": true, "ERRORS": true, "BLOCKS": true}
	for _, v := range views() {
		var got []string
		for _, c := range v.columns {
			got = append(got, c.name)
		}
		if all := strings.Join(got, " "); !strings.HasPrefix(all+" ", want[v.name]) || (want[v.name] == "") != ours[v.name] {
			t.Errorf("SHOW %s: %s", v.name, all)
		}
		switch v.name {
		case "LISTS", "STATE", "VERSION", "CONFIG", "TOTALS": // exporters count these
			if len(got) != len(strings.Fields(want[v.name])) {
				t.Errorf("SHOW %s has %d columns", v.name, len(got))
			}
		}
	}
}
