package drivertest

import (
	"fmt"
	"regexp"
	"testing"

	"shardproxy/internal/clientrun"
)

// counted matches the lines of pgbench's report that must not differ.
var counted = regexp.MustCompile(`(?m)^(number of (transactions actually processed|failed transactions)|query mode): .*$`)

// TestPgbench runs pgbench in all its query modes. Money may neither appear nor
// vanish, and no client may fail.
func TestPgbench(t *testing.T) {
	compare(t, "pgbench", func(l leg, _ []string) (string, error) {
		text := clientrun.SectionMark + "fill\n"
		bench := func(args ...string) error {
			out, err := runScript(l, nil, "pgbench", args...)
			for _, line := range counted.FindAllString(out, -1) {
				text += line + "\n"
			}
			return err
		}
		if err := bench("-i", "-I", "dtgvpf", "-q"); err != nil {
			return text, err
		}
		if err := bench("-i", "-I", "dtGvp", "-q"); err != nil {
			return text, err
		}
		// A thread for each client: pgbench waits for the answer to PREPARE with
		// the whole thread, also when the server connections that it waits for
		// are those of the thread's other clients.
		const clients, threads, transactions = 8, 8, 15
		for _, mode := range []string{"simple", "extended", "prepared"} {
			for _, what := range [][]string{{"-b", "tpcb-like"}, {"-b", "select-only"}, {"-b", "simple-update", "-C"}, {"-f", "testdata/pgbench/mixed.sql", "--max-tries=100000"}, {"-f", "testdata/pgbench/pipeline.sql"}} {
				if what[1] == "testdata/pgbench/pipeline.sql" && mode == "simple" {
					continue // pipelines are of the extended protocol
				}
				text += clientrun.SectionMark + fmt.Sprint(mode, " ", what) + "\n"
				args := append([]string{"-n", "-M", mode, "-c", fmt.Sprint(clients), "-j", fmt.Sprint(threads), "-t", fmt.Sprint(transactions)}, what...)
				if err := bench(args...); err != nil {
					return text, err
				}
				// In a transaction, so on the primary: others have written.
				out, err := psql(l, "-At", "-c", "BEGIN", "-c", "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history), count(*) FROM pgbench_history")
				if text += out; err != nil {
					return text, err
				}
			}
		}
		return text, nil
	})
}
