package admin

import (
	"math"
	"slices"
	"sync"
	"time"

	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// The types here are the contract of /api/v1/slots, moves, proxies and doubts,
// as those of api_status.go are of the status. Databases of one shard have none of it.

type apiSlots struct {
	Databases []apiSlotMap `json:"databases" doc:"those of several shards"`
}

type apiSlotMap struct {
	Name    string           `json:"name" doc:"the database"`
	Epoch   int64            `json:"epoch" doc:"the map's version; 0 before the proxy has one"`
	Slots   int              `json:"slots" doc:"how many there are"`
	Guarded bool             `json:"guarded" doc:"slots move: statements over several shards carry the predicate"`
	Closed  bool             `json:"closed" doc:"definitions and writes that concern all shards wait"`
	Shards  []apiShardSlots  `json:"shards" doc:"in the order of the configuration, then those that only the map has"`
	Owners  []apiOwnedSlots  `json:"owners" doc:"who owns what, ascending"`
	Moving  []apiMovingSlots `json:"moving" doc:"slots of moves that have not ended and whose target does not own them yet"`
}

type apiShardSlots struct {
	Name  string `json:"name" doc:"the shard"`
	Slots int    `json:"slots" doc:"as many does it own"`
	Held  int    `json:"slots_held" doc:"of those, whose writes wait"`
	// Member is false for shards of the configuration that wait to join.
	Member bool `json:"member" doc:"the map has the shard; one that has not joined owns nothing and is asked nothing"`
}

type apiOwnedSlots struct {
	From  shardmap.Slot `json:"from" doc:"the first slot"`
	To    shardmap.Slot `json:"to" doc:"the last one"`
	Shard string        `json:"shard" doc:"whose they are"`
	Held  bool          `json:"held" doc:"writes wait"`
}

type apiMovingSlots struct {
	From   shardmap.Slot `json:"from" doc:"the first slot"`
	To     shardmap.Slot `json:"to" doc:"the last one"`
	Target string        `json:"target" doc:"where they go"`
}

type apiMoves struct {
	Databases []apiDatabaseMoves `json:"databases" doc:"those of several shards"`
}

type apiDatabaseMoves struct {
	Name   string     `json:"name" doc:"the database"`
	ReadAt *time.Time `json:"read_at" doc:"when the home shard was asked; null when it was not yet"`
	Error  *string    `json:"error" doc:"why the last asking failed"`
	Moves  []apiMove  `json:"moves" doc:"in their order: those that have not ended, and the last that have"`
}

type apiMove struct {
	ID            int64          `json:"id" doc:"its number"`
	Kind          string         `json:"kind" doc:"slots, join (a shard joins) or leave"`
	Source        string         `json:"source" doc:"the shard that had the slots"`
	Target        string         `json:"target" doc:"the shard that gets them"`
	Slots         int            `json:"slots" doc:"how many"`
	SlotRanges    []apiSlotRange `json:"slot_ranges" doc:"which"`
	Phase         string         `json:"phase" doc:"planned, hiding, copying, following, flipped, reversing, purging, done, aborting, aborted"`
	Ended         bool           `json:"ended" doc:"nothing more is to be done"`
	Paused        bool           `json:"paused" doc:"no further phase is begun"`
	Aborting      bool           `json:"aborting" doc:"it is to be given up"`
	Reversible    bool           `json:"reversible" doc:"the source is kept as the target is behind the flip, until something is wanted"`
	Wanted        *string        `json:"wanted" doc:"complete or rollback, of a reversible move"`
	Back          bool           `json:"back" doc:"it is, or was, rolled back: source and target are those of the way back"`
	Verified      bool           `json:"verified" doc:"the rows of both sides were compared and equal"`
	Progress      float64        `json:"progress" doc:"how far it is, 0 to 1; it only grows until the move is given up or rolled back"`
	RowsEstimated *int64         `json:"rows_estimated" doc:"rows that it carries, about"`
	RowsCopied    int64          `json:"rows_copied" doc:"rows copied so far"`
	RowsPurged    int64          `json:"rows_purged" doc:"rows taken away from the source so far"`
	RowsPerSecond *float64       `json:"rows_per_second" doc:"copied lately; null while nothing is copied"`
	ETASeconds    *float64       `json:"eta_seconds" doc:"until all rows are copied, at that rate; null when not known"`
	HeldSeconds   float64        `json:"writes_held_seconds" doc:"for how long its writes were held last"`
	Said          string         `json:"said" doc:"what it waits for, or why it failed"`
	PlannedAt     time.Time      `json:"planned_at" doc:"when it was ordered"`
	ChangedAt     time.Time      `json:"changed_at" doc:"when its row was last written"`
}

type apiSlotRange struct {
	From shardmap.Slot `json:"from" doc:"the first slot"`
	To   shardmap.Slot `json:"to" doc:"the last one"`
}

type apiProxies struct {
	Databases []apiDatabaseProxies `json:"databases" doc:"those of several shards"`
}

type apiDatabaseProxies struct {
	Name    string     `json:"name" doc:"the database"`
	Self    string     `json:"self" doc:"the name of the proxy that answers"`
	Epoch   int64      `json:"epoch" doc:"of the map that it works by"`
	ReadAt  *time.Time `json:"read_at" doc:"when the home shard was asked; null when it was not yet"`
	Error   *string    `json:"error" doc:"why the last asking failed"`
	Proxies []apiProxy `json:"proxies" doc:"all that serve the database"`
}

type apiProxy struct {
	Name            string  `json:"name" doc:"the proxy's name"`
	Host            string  `json:"host" doc:"where it runs"`
	Present         bool    `json:"present" doc:"its session on the home shard is there"`
	Behind          bool    `json:"behind" doc:"it works, or may write, by an older map than this proxy knows"`
	Epoch           int64   `json:"epoch" doc:"of the newest map that it knows; 0 before it knows one"`
	WritesEpoch     int64   `json:"writes_epoch" doc:"the oldest map by which its transactions may have written"`
	StatementsEpoch int64   `json:"statements_epoch" doc:"the oldest map by which its statements run"`
	AgeSeconds      float64 `json:"age_seconds" doc:"since it last told so"`
}

type apiDoubts struct {
	Doubts []apiDoubt `json:"doubts" doc:"prepared parts of transactions over several shards that could not be finished yet, of each database the oldest first"`
}

type apiDoubt struct {
	Database   string  `json:"database" doc:"the database"`
	Shard      string  `json:"shard" doc:"the shard that has it prepared"`
	Name       string  `json:"name" doc:"as in pg_prepared_xacts; what the console's TWOPC takes"`
	Owner      string  `json:"owner" doc:"the role that prepared it"`
	AgeSeconds float64 `json:"age_seconds" doc:"since it was prepared"`
	Reason     string  `json:"reason" doc:"why it could not be finished yet"`
}

// clusterOf returns what is known of the shards together, nil for a database of one.
func clusterOf(d *Database) *Cluster {
	if d.Cluster == nil {
		return nil
	}
	return d.Cluster()
}

// clusterPictures are the pictures of what databases of several shards have together.
type clusterPictures struct {
	slots   apiSlots
	moves   apiMoves
	proxies apiProxies
	doubts  apiDoubts
}

// clustersOf makes them. Progress is measured from one call to the next.
func clustersOf(databases []Database, rates *moveRates) *clusterPictures {
	out := &clusterPictures{apiSlots{[]apiSlotMap{}}, apiMoves{[]apiDatabaseMoves{}}, apiProxies{[]apiDatabaseProxies{}}, apiDoubts{[]apiDoubt{}}}
	for i := range databases {
		d := &databases[i]
		for _, doubt := range d.Doubts {
			out.doubts.Doubts = append(out.doubts.Doubts, apiDoubt{d.Name, doubt.Shard, doubt.Name, doubt.Owner, doubt.Age.Seconds(), doubt.Reason})
		}
		c := clusterOf(d)
		if c == nil {
			continue
		}
		moves := apiDatabaseMoves{Name: d.Name, ReadAt: apiTime(c.At), Error: apiText(c.Error), Moves: []apiMove{}}
		parts := rates.measure(d.Name, c.Moves, c.At)
		for j := range c.Moves {
			moves.Moves = append(moves.Moves, moveOf(&c.Moves[j], parts[j]))
		}
		out.moves.Databases = append(out.moves.Databases, moves)
		out.slots.Databases = append(out.slots.Databases, slotsOf(d, c))
		out.proxies.Databases = append(out.proxies.Databases, proxiesOf(d.Name, c))
	}
	return out
}

func slotsOf(d *Database, c *Cluster) apiSlotMap {
	out := apiSlotMap{Name: d.Name, Epoch: c.Epoch, Slots: c.Slots, Guarded: c.Guarded, Closed: c.Closed, Shards: []apiShardSlots{}, Owners: []apiOwnedSlots{}, Moving: []apiMovingSlots{}}
	at := map[string]int{}
	shard := func(name string) *apiShardSlots {
		i, known := at[name]
		if !known {
			i = len(out.Shards)
			at[name] = i
			out.Shards = append(out.Shards, apiShardSlots{Name: name})
		}
		return &out.Shards[i]
	}
	for i := range d.Shards {
		shard(d.Shards[i].Name)
	}
	for _, r := range c.Owners {
		out.Owners = append(out.Owners, apiOwnedSlots(r))
		n, s := int(r.To)-int(r.From)+1, shard(r.Shard)
		s.Slots += n
		if r.Held {
			s.Held += n
		}
	}
	for _, name := range c.Members {
		shard(name).Member = true
	}
	for i := range c.Moves {
		if m := &c.Moves[i]; !m.Phase.Ended() && !m.Phase.Flipped() {
			for _, r := range rangesOf(m.Slots) {
				out.Moving = append(out.Moving, apiMovingSlots{r.From, r.To, m.Target})
			}
		}
	}
	return out
}

// rangesOf joins neighbours.
func rangesOf(slots []shardmap.Slot) []apiSlotRange {
	out := []apiSlotRange{}
	sorted := slices.Sorted(slices.Values(slots))
	for _, s := range sorted {
		if n := len(out); n > 0 && int(s) <= int(out[n-1].To)+1 {
			out[n-1].To = s
		} else {
			out = append(out, apiSlotRange{s, s})
		}
	}
	return out
}

func moveOf(m *metadata.Move, p movePart) apiMove {
	out := apiMove{
		ID: m.ID, Kind: string(m.Kind), Source: m.Source, Target: m.Target, Slots: len(m.Slots), SlotRanges: rangesOf(m.Slots), Phase: string(m.Phase),
		Ended: m.Phase.Ended(), Paused: m.Paused, Aborting: m.Abort || m.Phase == metadata.MoveAborting, Reversible: m.Reversible, Wanted: apiText(string(m.Wanted)), Back: m.Back, Verified: m.Verified, Progress: math.Round(p.done*1000) / 1000,
		RowsCopied: m.Copied, RowsPurged: m.Purged, HeldSeconds: float64(m.HeldMs) / 1000, Said: m.Said,
		PlannedAt: m.PlannedAt.UTC(), ChangedAt: m.Changed.UTC(),
	}
	if m.Rows > 0 {
		out.RowsEstimated = &m.Rows
	}
	if p.rate > 0 && m.Phase == metadata.MoveCopying {
		rate := math.Round(p.rate)
		out.RowsPerSecond = &rate
		if left := m.Rows - m.Copied; left > 0 {
			eta := math.Ceil(float64(left) / p.rate)
			out.ETASeconds = &eta
		}
	}
	return out
}

func proxiesOf(database string, c *Cluster) apiDatabaseProxies {
	out := apiDatabaseProxies{Name: database, Self: c.Self, Epoch: c.Epoch, ReadAt: apiTime(c.At), Error: apiText(c.Error), Proxies: []apiProxy{}}
	for i := range c.Proxies {
		a := &c.Proxies[i]
		out.Proxies = append(out.Proxies, apiProxy{
			Name: a.Proxy, Host: a.Host, Present: a.Present, Behind: min(a.Epoch, a.Writes, a.Statements) < c.Epoch,
			Epoch: a.Epoch, WritesEpoch: a.Writes, StatementsEpoch: a.Statements, AgeSeconds: a.Age.Seconds(),
		})
	}
	return out
}

// moveRates knows of the moves that have not ended how far they had come, and
// how fast they copy. It is safe for concurrent use.
type moveRates struct {
	// mu guards known.
	mu    sync.Mutex
	known map[string]map[int64]*moveRate // by database, by number
}

type moveRate struct {
	back   bool
	done   float64 // shown so far: a bar only grows
	copied int64
	at     time.Time // of copied
	rate   float64   // rows per second
}

// movePart is what is shown of a move's progress.
type movePart struct{ done, rate float64 }

// measure returns the parts of a database's moves as they were read at a time.
func (r *moveRates) measure(database string, moves []metadata.Move, at time.Time) []movePart {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, kept := r.known[database], map[int64]*moveRate{}
	parts := make([]movePart, len(moves))
	for i := range moves {
		m := &moves[i]
		if m.Phase.Ended() {
			parts[i].done = m.Done()
			continue
		}
		k := before[m.ID]
		if k == nil || k.back != m.Back {
			k = &moveRate{back: m.Back, copied: m.Copied, at: at}
		}
		kept[m.ID] = k
		k.advance(m, at)
		parts[i] = movePart{k.done, k.rate}
	}
	if r.known == nil {
		r.known = map[string]map[int64]*moveRate{}
	}
	if r.known[database] = kept; len(kept) == 0 {
		delete(r.known, database)
	}
	return parts
}

// advance takes what was read at a time. The rate is smoothed; it is of the
// time since rows were last seen to have come.
func (k *moveRate) advance(m *metadata.Move, at time.Time) {
	if k.done = max(k.done, m.Done()); m.Phase == metadata.MoveAborting {
		k.done = 0
	}
	took := at.Sub(k.at).Seconds()
	switch {
	case m.Copied < k.copied: // it began anew
		k.copied, k.at, k.rate = m.Copied, at, 0
	case m.Copied > k.copied && took > 0:
		rate := float64(m.Copied-k.copied) / took
		if k.rate > 0 {
			rate = 0.7*k.rate + 0.3*rate
		}
		k.copied, k.at, k.rate = m.Copied, at, rate
	case took > 10: // nothing comes any more
		k.rate = 0
	}
}
