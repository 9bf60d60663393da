package admin

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"net/http"
	"sync"
	"time"

	"shardproxy/failover"
)

// looks are pictures of all that the page shows, taken when somebody asks and
// shared by those who ask at the same time. It is safe for concurrent use.
type looks struct {
	opt     Options
	history *history
	rates   moveRates
	events  chronicle
	seed    maphash.Seed

	// mu guards what follows; it is held while a picture is taken, so that many
	// viewers cost what one does.
	mu    sync.Mutex
	last  *look
	until time.Time
	// statements are what was counted at statementsAt.
	statements   []byte
	statementsAt time.Time
}

// lookShared is how long one picture is shown to others who ask.
const lookShared = 100 * time.Millisecond

// look is one picture, as JSON by the names of its events. It never changes.
type look struct {
	frames []event
	alarm  uint64 // differs when a role, a health or a gate does
}

type event struct {
	name string
	data []byte
}

func newLooks(o Options) *looks {
	return &looks{opt: o, history: newHistory(), seed: maphash.MakeSeed()}
}

// take returns a picture that is at most lookShared old.
func (l *looks) take() (*look, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if real := time.Now(); l.last == nil || real.After(l.until) {
		p, err := l.fresh()
		if err != nil {
			return nil, err
		}
		l.last, l.until = p, time.Now().Add(lookShared)
	}
	return l.last, nil
}

func (l *looks) fresh() (*look, error) {
	src := l.opt.Source
	databases := src.Databases()
	cluster := clustersOf(databases, &l.rates)
	p := &look{alarm: l.alarm(databases)}
	for _, part := range []struct {
		event string
		value any
	}{
		{"status", statusOf(l.opt.Version, src.Process(), databases, src.Pools(), l.opt.Clock())},
		{"slots", &cluster.slots}, {"moves", &cluster.moves}, {"proxies", &cluster.proxies}, {"doubts", &cluster.doubts},
		{"events", l.events.page()},
	} {
		data, err := json.Marshal(part.value)
		if err != nil {
			return nil, err
		}
		p.frames = append(p.frames, event{part.event, data})
	}
	// Counters of statements are many, and differ each time.
	if now := time.Now(); l.statements == nil || now.Sub(l.statementsAt) >= statementsEach {
		data, err := json.Marshal(statementsPage(databases, l.opt.Clock()))
		if err != nil {
			return nil, err
		}
		l.statements, l.statementsAt = data, now
	}
	p.frames = append(p.frames, event{"statements", l.statements})
	return p, nil
}

// notice notes what has happened, and adds a sample to the history when it is
// time. A source that fails costs the sample.
func (l *looks) notice(sample bool) {
	defer func() {
		if p := recover(); p != nil {
			l.opt.Logger.Error("sampling for the dashboard panicked", "panic", p)
		}
	}()
	databases, now := l.opt.Source.Databases(), l.opt.Clock()
	l.events.look(l.opt.Source.Process(), databases, now)
	if sample {
		l.history.take(databases, l.opt.Source.Pools(), now)
	}
}

// alarm sums up what is to be seen at once.
func (l *looks) alarm(databases []Database) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	for i := range databases {
		d := &databases[i]
		_, _ = h.WriteString(d.Name)
		_ = h.WriteByte(bit8(d.Paused))
		for j := range d.Shards {
			sh := &d.Shards[j]
			_ = h.WriteByte(bit8(sh.Gate.Closed))
			_ = h.WriteByte(bit8(sh.Nodes.Primary == failover.NoNode))
			for k := range sh.Nodes.Nodes {
				n := &sh.Nodes.Nodes[k]
				_, _ = h.Write([]byte{byte(n.Role), byte(n.Health), bit8(sh.Primary() == n)})
			}
		}
	}
	return h.Sum64()
}

func bit8(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// serve answers with one part of a picture.
func (l *looks) serve(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		p, err := l.take()
		if err != nil {
			l.failed(w, err)
			return
		}
		for _, f := range p.frames {
			if f.name == name {
				writeJSON(w, f.data)
			}
		}
	}
}

// serveHistory answers with all samples that are kept.
func (l *looks) serveHistory(w http.ResponseWriter, _ *http.Request) {
	data, err := json.Marshal(l.history.page(0))
	if err != nil {
		l.failed(w, err)
		return
	}
	writeJSON(w, data)
}

func (l *looks) failed(w http.ResponseWriter, err error) {
	l.opt.Logger.Error("status as JSON failed", "error", err)
	http.Error(w, "internal error", http.StatusInternalServerError)
}

func writeJSON(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(bytes.Clone(data), '\n'))
}

// routes are the paths of the contract.
func (l *looks) routes() (all []route) {
	for _, event := range []string{"status", "slots", "moves", "proxies", "doubts", "events", "statements"} {
		all = append(all, route{"GET /api/v1/" + event, mayLook, "", l.serve(event)})
	}
	return append(all, route{"GET /api/v1/history", mayLook, "", http.HandlerFunc(l.serveHistory)})
}
