package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/gate"
	"shardproxy/internal/pgtest"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// Flags of FuzzServer. The two lowest bits say what the server does when its
// script is over.
const (
	flagLogin     = 1 << (iota + 2) // the server is first asked for the settings of a login
	flagAlways                      // many connections speak by the script, not only the first
	flagSession                     // session pooling
	flagStatement                   // statement pooling
	flagTurns                       // the client waits for each answer

	// flagGoroutine has a goroutine drive the session. It takes three bits: a session
	// of its kind takes longer to find out that its client has gone.
	flagGoroutine = 7 << 12
)

// FuzzServer lets a server say anything, in any order and of any size. Its client
// gets what answers its requests, or an error; the server connection is not used
// again when it is out of step. Nothing panics, hangs, or takes memory for what was
// only announced.
func FuzzServer(f *testing.F) {
	real := pgtest.Shared(f)
	d, rec := recorded(f, real)
	for seed := range 30 {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		frames := sequence(r, 2+r.IntN(10))
		said := d.record(f, rec, frames)
		f.Add(fuzzBytes(frames), said, uint16(r.IntN(3))|uint16(seed%2)*flagGoroutine|uint16(r.IntN(2))*flagTurns)
	}
	for _, seed := range serverSeeds() {
		for _, flags := range []uint16{thenCloses | flagTurns, thenCloses | flagGoroutine, thenServes | flagTurns, thenIsSilent} {
			f.Add(fuzzBytes(seed.client), seed.server, seed.flags|flags)
		}
	}
	loop, goroutine := fakeDriven(f, real, proxy.DriverLoop), fakeDriven(f, real, proxy.DriverGoroutine)
	f.Fuzz(func(t *testing.T, client, server []byte, flags uint16) {
		s := speech{data: server, conns: 1, then: int(flags&3) % thens}
		if flags&flagAlways != 0 {
			s.conns = 200
		}
		d := loop
		if flags&flagGoroutine == flagGoroutine {
			d = goroutine
		}
		d.try(t, framesOf(client), s, flags)
	})
}

// driven is a proxy whose servers are not what they should be.
type driven struct {
	fake   *fakeServer
	db     *proxy.Database
	pools  *pool.Pools
	client string // the address of the proxy
	panics *panics
	logins atomic.Int64 // makes the settings of each unlike those of others
}

// panics is a log handler that keeps what the proxy says of its own panics.
type panics struct {
	mu   sync.Mutex
	seen []string
}

func (p *panics) Enabled(context.Context, slog.Level) bool { return true }
func (p *panics) WithAttrs([]slog.Attr) slog.Handler       { return p }
func (p *panics) WithGroup(string) slog.Handler            { return p }
func (p *panics) Handle(_ context.Context, r slog.Record) error {
	if !strings.Contains(r.Message, "panicked") {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += "\n" + a.String()
		return true
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, text)
	return nil
}

func (p *panics) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = nil
	return seen
}

// fakeDriven is a proxy before a fake server. What it knows of the catalog comes
// from a real one.
func fakeDriven(t testing.TB, real *pgtest.Database, driver proxy.Driver) *driven {
	fake, address := newFake(t)
	d := drive(t, address, real, driver)
	d.fake = fake
	p := *d.db.Policy()
	p.WaitTimeout = 50 * time.Millisecond // for one that lets nobody in
	d.db.SetPolicy(p)
	return d
}

// drive is a proxy before the server at the address.
func drive(t testing.TB, address string, real *pgtest.Database, driver proxy.Driver) *driven {
	t.Helper()
	d := &driven{panics: &panics{}}
	logger, buffers := slog.New(d.panics), &wire.Buffers{}
	pools := pool.New(pool.Options{
		Nodes: []string{address}, Buffers: buffers, Logger: logger,
		Target:       pool.Target{Database: real.Name, ConnectTimeout: rawTimeout, TLS: pool.TLS{Mode: "disable"}},
		ResetTimeout: 10 * time.Millisecond,
	})
	pools.Open()
	d.pools = pools
	d.db = &proxy.Database{
		Name: "app", Statements: pool.NewStatements(), Planner: newRouter(t, real.Node.Addr(), real.Name),
		Shards: []*proxy.Shard{{Name: "s0", Pools: pools, Nodes: fixedNodes{}, Gate: gate.New(gate.Options{})}},
	}
	d.db.SetPolicy(proxy.DatabasePolicy{Consistent: true, Split: true, WaitTimeout: rawTimeout, ParsedMax: 1 << 20, MessageMax: 1 << 30})
	srv := proxy.New(proxy.Options{Auth: trustAll{}, Logger: logger, Buffers: buffers, Driver: driver, Loops: 1}, &proxy.Settings{
		StartupMax: 10000, LoginTimeout: rawTimeout, Databases: map[string]*proxy.Database{"app": d.db},
		Policy: func(_, user string) proxy.UserPolicy {
			return proxy.UserPolicy{
				Mode: map[string]proxy.Mode{"session": proxy.ModeSession, "statement": proxy.ModeStatement}[user],
				Pool: pool.Policy{Size: 3, MaxDialing: 1, LifeTime: time.Hour, IdleTimeout: time.Minute, PreparedStatements: 2},
			}
		},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if address[0] == '/' {
		l.Close()
		l, err = net.Listen("unix", strings.TrimSuffix(address, ":5432")+"/proxy")
	}
	if err != nil {
		t.Fatal(err)
	}
	d.client = l.Addr().String()
	srv.Open(l)
	t.Cleanup(func() {
		srv.Close()
		pools.Close()
	})
	return d
}

func (d *driven) dial(t testing.TB) *rawClient {
	t.Helper()
	network := "tcp"
	if d.client[0] == '/' {
		network = "unix"
	}
	nc, err := net.DialTimeout(network, d.client, rawTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return newRaw(nc)
}

// Bounds of one conversation.
const (
	// silence is how long a client waits for a server that says nothing.
	silence = 4 * time.Millisecond
	// lastLook is how long a client listens behind the last answer.
	lastLook = 100 * time.Microsecond
	// connsPerRequest is how often a request may be tried.
	connsPerRequest = 12
	// frameBytes is what one server connection may cost: its largest frame that is
	// read whole.
	frameBytes = 80 << 20
)

// try has one client talk to the proxy while its servers speak by the script.
func (d *driven) try(t *testing.T, frames []frame, s speech, flags uint16) {
	d.fake.say(s)
	before := heapAllocs()
	c := d.dial(t)
	defer c.Close()
	transcript, err := d.converse(c, frames, s, flags)
	c.Close()
	if err != nil {
		t.Errorf("%v: %v\nafter %s", frames, err, strings.Join(transcript, "\n"))
	}
	conns := d.fake.accepted.Load()
	if slices.ContainsFunc(frames, func(f frame) bool { return f.kind == wire.MsgTerminate }) {
		d.fake.say(speech{}) // what the client has asked for before it took its leave still runs
	}
	if !d.free() {
		t.Errorf("%v: %d clients and %d connections are left over, after\n%s", frames, d.db.Clients(), d.pools.Lent(), strings.Join(transcript, "\n"))
	}
	if n, _ := d.db.Statements.Len(); n != 0 {
		t.Errorf("%v: %d statements are left over", frames, n)
	}
	for _, p := range d.panics.take() {
		t.Errorf("%v: %s", frames, p)
	}
	if limit := int64(len(frames)+len(theEnd())+2) * connsPerRequest; conns > limit && !bytes.Contains(s.data, []byte("25006")) { // one is tried for a second
		t.Errorf("%v: %d server connections were used", frames, conns)
	}
	if cost, limit := heapAllocs()-before, uint64(conns+1)*frameBytes; cost > limit {
		t.Errorf("%v: takes %d MiB of memory", frames, cost>>20)
	}
	d.pools.Retire(0)
}

// free waits until nothing is left of a client.
func (d *driven) free() bool {
	for end := time.Now().Add(rawTimeout); d.db.Clients() > 0 || d.pools.Lent() > 0; {
		if time.Now().After(end) {
			return false
		}
		<-time.After(50 * time.Microsecond)
	}
	return true
}

func heapAllocs() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// converse logs in, sends the frames and judges what comes back, up to the end of
// the conversation, of the connection, or, where the server may owe an answer, of
// patience.
func (d *driven) converse(c *rawClient, frames []frame, s speech, flags uint16) (transcript []string, err error) {
	user := "postgres"
	switch {
	case flags&flagSession != 0:
		user = "session"
	case flags&flagStatement != 0:
		user = "statement"
	}
	var params []string
	if flags&flagLogin != 0 {
		params = []string{"application_name", fmt.Sprint("client ", d.logins.Add(1))}
	}
	k := &talk{rawClient: c, patience: rawTimeout, mayHang: s.then != thenCloses}
	if k.mayHang {
		k.patience = silence
	}
	if in, err := k.enter(user, params); err != nil || !in {
		return nil, err
	}
	frames = append(frames[:len(frames):len(frames)], theEnd()...)
	k.owed = newOwed(frames)
	for len(frames) > 0 && err == nil && !k.over {
		n := len(frames)
		if flags&flagTurns != 0 && !k.owed.loose {
			n = 1 + slices.IndexFunc(frames, func(f frame) bool { return strings.IndexByte("QSF", f.kind) >= 0 })
		}
		k.send(frames[:n])
		frames = frames[n:]
		ends := 0
		for _, f := range frames {
			if strings.IndexByte("QPBDECSF", f.kind) >= 0 {
				ends++
			}
		}
		err = k.listen(ends)
	}
	if k.owed.loose && err == nil && !k.over {
		// Which requests were read as such is not known; one more is.
		k.patience = rawTimeout
		if k.mayHang {
			k.patience = silence
		}
		k.send(theEnd())
		err = k.listen(0)
	}
	if err == nil && !k.over && !k.owed.loose {
		if kind, body, none := k.hear(lastLook); none == nil { // behind all answers
			err = k.owed.take(kind, body)
		}
	}
	return k.transcript, err
}
