package admin

import (
	"slices"
	"strings"
	"time"

	"shardproxy/proxy"
	"shardproxy/query"
	"shardproxy/tally"
)

// What /api/v1/statements tells of: the first of each order, looked for at most this often.
const (
	statementsTop  = 10
	statementsEach = 5 * time.Second
)

// apiStatements is the contract of /api/v1/statements.
type apiStatements struct {
	At        time.Time         `json:"at" doc:"when these were counted; they are looked at each 5 s"`
	Databases []apiStatementsOf `json:"databases" doc:"in the order of the configuration"`
}

type apiStatementsOf struct {
	Name         string         `json:"name" doc:"the database"`
	Since        *time.Time     `json:"counted_since" doc:"the start, or the last RESET QUERIES; null when limits.statements is 0"`
	Fingerprints int            `json:"fingerprints" doc:"kinds of statements that are kept"`
	Limit        int            `json:"fingerprints_limit" doc:"limits.statements"`
	Evictions    int64          `json:"evictions_total" doc:"kinds that gave way to others"`
	Slow         int64          `json:"slow_total" doc:"requests that took as long as log.slow_statement"`
	Statements   []apiStatement `json:"statements" doc:"those that are among the first ten by the time of all, the 99th percentile, calls, calls on several shards, or errors; by the time of all"`
	HotSlots     []apiHotSlot   `json:"hot_slots" doc:"the first ten by how many statements ask for them"`
	Errors       []apiError     `json:"errors" doc:"the first ten kinds by their number"`
}

type apiStatement struct {
	Fingerprint string           `json:"fingerprint" doc:"what it is known by; empty for all that were not understood"`
	Query       string           `json:"query" doc:"the text without its values"`
	Calls       int64            `json:"calls_total" doc:"that have ended"`
	Errors      int64            `json:"errors_total" doc:"of these, with an error"`
	Refused     int64            `json:"refused_total" doc:"of these, sent nowhere"`
	Retries     int64            `json:"retries_total" doc:"begun anew, unseen"`
	Rows        int64            `json:"rows_total" doc:"returned or changed"`
	Bytes       int64            `json:"bytes_total" doc:"of the answers"`
	Seconds     *float64         `json:"seconds_total" doc:"of all calls together, by the mean of those that were timed; null when none was, as what follows"`
	Mean        *float64         `json:"mean_seconds" doc:"waits included, as what follows"`
	Max         *float64         `json:"max_seconds" doc:"the longest of those that were timed"`
	P50         *float64         `json:"p50_seconds" doc:"half are not longer"`
	P95         *float64         `json:"p95_seconds" doc:"95 of 100 are not"`
	P99         *float64         `json:"p99_seconds" doc:"99 of 100 are not"`
	Several     int64            `json:"several_total" doc:"calls that ran on several shards"`
	ByShard     map[string]int64 `json:"calls_by_shard" doc:"only shards with calls; null in a database of one"`
}

type apiHotSlot struct {
	Slot      int    `json:"slot" doc:"its number"`
	Shard     string `json:"shard" doc:"its owner"`
	PerSecond int64  `json:"statements_per_second" doc:"about, in the last whole minute"`
	Percent   int64  `json:"percent" doc:"of the statements that run by a key"`
}

type apiError struct {
	Code    string    `json:"sqlstate" doc:"empty for those of too many kinds"`
	Origin  string    `json:"origin" doc:"proxy or server"`
	Count   int64     `json:"count_total" doc:"how many clients were told of"`
	Last    time.Time `json:"last_at" doc:"when the last one was"`
	Message string    `json:"message" doc:"the last text without what stood in quotes; empty for servers' errors"`
}

func statementsPage(databases []Database, now time.Time) *apiStatements {
	out := &apiStatements{At: now.UTC(), Databases: []apiStatementsOf{}}
	for i := range databases {
		out.Databases = append(out.Databases, statementsOfDatabase(&databases[i], now))
	}
	return out
}

func statementsOfDatabase(d *Database, now time.Time) apiStatementsOf {
	out := apiStatementsOf{Name: d.Name, Slow: d.Slow, Statements: []apiStatement{}, HotSlots: []apiHotSlot{}, Errors: []apiError{}}
	if d.Statements != nil {
		all, state := d.Statements()
		since := state.Since.UTC()
		out.Since, out.Fingerprints, out.Limit, out.Evictions = &since, state.Entries, state.Limit, state.Evictions
		for _, s := range firstOfEach(all) {
			out.Statements = append(out.Statements, apiStatementOf(d, &s))
		}
	}
	if d.HotSlots != nil {
		owner := ownerOf(d)
		for _, h := range d.HotSlots(statementsTop, now.UnixNano()) {
			out.HotSlots = append(out.HotSlots, apiHotSlot{h.Slot, owner(h.Slot), perSecond(&h), h.Count * 100 / max(h.Of, 1)})
		}
	}
	for _, e := range byCount(d.Errors)[:min(len(d.Errors), statementsTop)] {
		out.Errors = append(out.Errors, apiError{e.Code, origin(e), e.Count, e.Last.UTC(), e.Message})
	}
	return out
}

// firstOfEach returns the statements that are among the first of some order, sorted by time.
func firstOfEach(all []tally.Statement) (first []tally.Statement) {
	byTime(all)
	taken := map[uint64]bool{}
	for _, of := range []func(*tally.Statement) int64{
		func(s *tally.Statement) int64 { return int64(s.Estimated()) }, func(s *tally.Statement) int64 { return int64(s.P99) },
		func(s *tally.Statement) int64 { return s.Calls }, func(s *tally.Statement) int64 { return s.Several }, func(s *tally.Statement) int64 { return s.Errors },
	} {
		order := make([]int, len(all))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return compare(of(&all[b]), of(&all[a])) })
		for _, i := range order[:min(len(order), statementsTop)] {
			if of(&all[i]) > 0 {
				taken[all[i].Fingerprint] = true
			}
		}
	}
	return slices.DeleteFunc(all, func(s tally.Statement) bool { return !taken[s.Fingerprint] })
}

func apiStatementOf(d *Database, s *tally.Statement) apiStatement {
	seconds := func(t time.Duration) *float64 {
		if s.Timed == 0 {
			return nil
		}
		f := t.Seconds()
		return &f
	}
	out := apiStatement{
		Query: s.Text, Calls: s.Calls, Errors: s.Errors, Refused: s.Refused, Retries: s.Retries, Rows: s.Rows, Bytes: s.Bytes, Seconds: seconds(s.Estimated()), Mean: seconds(s.Mean()),
		Max: seconds(s.Max), P50: seconds(s.P50), P95: seconds(s.P95), P99: seconds(s.P99), Several: s.Several,
	}
	if s.Fingerprint != 0 {
		out.Fingerprint = query.FingerprintName(s.Fingerprint)
	}
	if s.ByShard != nil {
		out.ByShard = map[string]int64{}
		for i, n := range s.ByShard {
			if n > 0 && i < len(d.Shards) {
				out.ByShard[d.Shards[i].Name] = n
			}
		}
	}
	return out
}

// byCount returns errors, those there were most of first.
func byCount(errors []proxy.ErrorCount) []proxy.ErrorCount {
	all := slices.Clone(errors)
	slices.SortFunc(all, func(a, b proxy.ErrorCount) int {
		if a.Count != b.Count {
			return compare(b.Count, a.Count)
		}
		return strings.Compare(a.Code+origin(a), b.Code+origin(b))
	})
	return all
}

func origin(e proxy.ErrorCount) string {
	if e.Own {
		return "proxy"
	}
	return "server"
}
