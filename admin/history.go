package admin

import (
	"math"
	"strconv"
	"sync"
	"time"

	"shardproxy/histogram"
)

// What the history keeps: an hour, of the whole proxy and of each of the first
// databases of the configuration. With 32 databases that is 3.1 MB.
const (
	sampleEach       = 5 * time.Second
	samplesKept      = 720
	historyDatabases = 32
)

// counts are the figures of a database, or of all, that the history is made
// of: counters since the start, and what is now.
type counts struct {
	statements, transactions, reads, replicaReads float64
	errors, retries, received, sent               float64
	leases, refused, waited                       float64 // waited: seconds
	clients, waiting, held                        float64 // now
	requests                                      histogram.Counts
}

func (c counts) plus(o counts) counts {
	return counts{
		c.statements + o.statements, c.transactions + o.transactions, c.reads + o.reads, c.replicaReads + o.replicaReads,
		c.errors + o.errors, c.retries + o.retries, c.received + o.received, c.sent + o.sent,
		c.leases + o.leases, c.refused + o.refused, c.waited + o.waited,
		c.clients + o.clients, c.waiting + o.waiting, c.held + o.held, c.requests.Plus(o.requests),
	}
}

// series are the names of a sample's values, in their order.
func seriesNames() [seriesCount]string {
	return [seriesCount]string{
		"statements_per_second", "transactions_per_second", "reads_per_second", "replica_reads_per_second",
		"errors_per_second", "retries_per_second", "received_bytes_per_second", "sent_bytes_per_second",
		"leases_per_second", "refused_per_second", "lease_wait_seconds",
		"clients", "clients_waiting", "statements_held", "request_p50_seconds", "request_p95_seconds", "request_p99_seconds",
	}
}

const seriesCount = 17

// values are a sample's, in the order of seriesNames.
type values [seriesCount]float64

// since returns what happened in the time between two counts. Counters that
// are smaller than before began anew, with the database.
func (c counts) since(b counts, seconds float64) values {
	grown := func(now, before float64) float64 {
		if now < before {
			before = 0
		}
		return now - before
	}
	rate := func(now, before float64) float64 { return grown(now, before) / seconds }
	wait := 0.0
	if leases := grown(c.leases, b.leases); leases > 0 {
		wait = grown(c.waited, b.waited) / leases
	}
	requests := c.requests.Minus(b.requests)
	quantile := func(q float64) float64 {
		if t, ok := requests.Quantile(q); ok {
			return t.Seconds()
		}
		return math.NaN()
	}
	return values{
		rate(c.statements, b.statements), rate(c.transactions, b.transactions), rate(c.reads, b.reads), rate(c.replicaReads, b.replicaReads),
		rate(c.errors, b.errors), rate(c.retries, b.retries), rate(c.received, b.received), rate(c.sent, b.sent),
		rate(c.leases, b.leases), rate(c.refused, b.refused), wait,
		c.clients, c.waiting, c.held, quantile(0.5), quantile(0.95), quantile(0.99),
	}
}

// countsOf adds up the figures of each database.
func countsOf(databases []Database, pools []Pool) map[string]counts {
	all := map[string]counts{}
	for i := range databases {
		d := &databases[i]
		t, p := &d.Totals, &d.PoolTotals
		c := counts{
			statements: float64(t.Statements), transactions: float64(t.Transactions), reads: float64(t.Reads), replicaReads: float64(t.ReplicaReads),
			errors: float64(t.Errors), retries: float64(t.Retries), received: float64(t.Received), sent: float64(t.Sent),
			leases: float64(p.Assigned), refused: float64(p.Shed), waited: float64(p.WaitNanos) / 1e9, clients: float64(d.Clients),
		}
		for _, of := range d.Asked {
			c.requests = c.requests.Plus(of.Durations)
		}
		for j := range d.Shards {
			c.held += float64(d.Shards[j].Gate.HeldNow)
		}
		all[d.Name] = c
	}
	for i := range pools {
		if c, known := all[pools[i].Database]; known {
			c.waiting += float64(pools[i].Waiting)
			all[pools[i].Database] = c
		}
	}
	return all
}

// track is one line of the history, a ring as long as the clock's.
type track [samplesKept]values

// history keeps the last hour. It is safe for concurrent use.
type history struct {
	// mu guards what follows.
	mu     sync.Mutex
	taken  int // samples so far; the newest is at (taken-1) % samplesKept
	at     [samplesKept]time.Time
	total  track
	tracks map[string]*track
	last   map[string]counts
	lastAt time.Time
}

func newHistory() *history { return &history{tracks: map[string]*track{}} }

// take adds a sample. The first call only counts.
func (h *history) take(databases []Database, pools []Pool, now time.Time) {
	current := countsOf(databases, pools)
	h.mu.Lock()
	defer h.mu.Unlock()
	seconds := now.Sub(h.lastAt).Seconds()
	last := h.last
	h.last, h.lastAt = current, now
	if last == nil || seconds <= 0 {
		return
	}
	slot := h.taken % samplesKept
	h.at[slot] = now
	h.taken++
	var sum values
	kept := map[string]*track{}
	for i := range databases {
		name := databases[i].Name
		before, known := last[name]
		if !known {
			before = current[name] // it came with a reload: nothing is known of the time before
		}
		v := current[name].since(before, seconds)
		for k := range sum {
			sum[k] += v[k]
		}
		if len(kept) == historyDatabases {
			continue
		}
		t := h.tracks[name]
		if t == nil {
			t = emptyTrack()
		}
		t[slot] = v
		kept[name] = t
	}
	together := ofAll(last, current)
	for _, k := range unaddable() {
		sum[k] = together[k]
	}
	h.total[slot], h.tracks = sum, kept
}

// unaddable are the series that cannot be added up: the mean wait, and percentiles.
func unaddable() []int { return []int{10, 14, 15, 16} }

// ofAll is what happened in all databases together, as if they were one.
func ofAll(last, current map[string]counts) values {
	var before, now counts
	for name, c := range current {
		if b, known := last[name]; known && b.leases <= c.leases {
			before, now = before.plus(b), now.plus(c)
		}
	}
	return now.since(before, 1)
}

// emptyTrack is one of a time when nothing was known.
func emptyTrack() *track {
	t := &track{}
	for i := range t {
		for k := range t[i] {
			t[i][k] = math.NaN()
		}
	}
	return t
}

// numbers are printed short, and what is not known as null.
type numbers []float64

// MarshalJSON implements json.Marshaler.
func (n numbers) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 6*len(n)+2)
	b = append(b, '[')
	for i, v := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendNumber(b, v)
	}
	return append(b, ']'), nil
}

func appendNumber(b []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	if v >= 100 || v == math.Trunc(v) {
		return strconv.AppendFloat(b, math.Round(v*10)/10, 'f', -1, 64)
	}
	return strconv.AppendFloat(b, v, 'g', 4, 64)
}

// apiSeries are the lines of one database or of all; its names are those of seriesNames.
type apiSeries map[string]numbers

type apiHistory struct {
	SampleSeconds float64              `json:"sample_seconds" doc:"the time between two samples"`
	KeptSamples   int                  `json:"kept_samples" doc:"as many are kept at most"`
	At            numbers              `json:"sampled_at_unix_seconds" doc:"the samples' ends, the oldest first; all other arrays are as long"`
	Total         apiSeries            `json:"total" doc:"of all databases together; the series are listed below"`
	Databases     map[string]apiSeries `json:"databases" doc:"of each of the first 32 databases; null where nothing is known"`
}

// page returns the samples behind the first skip ones, the oldest first.
func (h *history) page(skip int) *apiHistory {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := max(h.taken-samplesKept, skip, 0)
	n := max(h.taken-first, 0)
	out := &apiHistory{SampleSeconds: sampleEach.Seconds(), KeptSamples: samplesKept, At: make(numbers, n), Databases: map[string]apiSeries{}}
	for i := range n {
		out.At[i] = float64(h.at[(first+i)%samplesKept].UnixMilli()) / 1000
	}
	cut := func(t *track) apiSeries {
		s := apiSeries{}
		for k, name := range seriesNames() {
			line := make(numbers, n)
			for i := range n {
				line[i] = t[(first+i)%samplesKept][k]
			}
			s[name] = line
		}
		return s
	}
	out.Total = cut(&h.total)
	for name, t := range h.tracks {
		out.Databases[name] = cut(t)
	}
	return out
}

// samples returns how many were taken.
func (h *history) samples() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken
}
