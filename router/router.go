package router

import (
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/query"
	"shardproxy/tally"
)

// DefaultCacheBytes bounds the plan cache of one database.
const DefaultCacheBytes = 32 << 20

// Options configure a Router.
type Options struct {
	// Catalog returns the newest snapshot of the database's catalog, nil while
	// there is none. It is called for every plan and must be cheap.
	Catalog func() *catalog.Catalog
	// ReadOnlyFunctions names volatile functions that are known to read only
	// and to answer alike on every node: "name" in any schema, or
	// "schema.name" where the statement names the schema.
	ReadOnlyFunctions []string
	// Rules say where the tables of a database of several shards lie; nil: there is
	// one shard. The Catalog must have tables then.
	Rules *config.Database
	// CacheBytes bounds the plan cache; DefaultCacheBytes when 0.
	CacheBytes int64
	// MaxTextBytes bounds the texts that are parsed; query.DefaultMaxBytes when 0.
	MaxTextBytes int
	// Tally counts what statements cost, by their fingerprints; nil: nothing does.
	Tally *tally.Book
	// Parsers bounds how many texts are parsed at once; GOMAXPROCS when 0.
	Parsers int
}

// Router plans the statements of one database. It is safe for concurrent use.
type Router struct {
	opts     Options
	readOnly map[string]struct{}
	slots    chan struct{}
	long     chan struct{} // the same, for texts of LongText and more
	seed     maphash.Seed
	cache    *cache
	normals  sync.Pool
	counts   [16]counts
	opaque   atomic.Uint64
	scatters *scatterCache
	bound    atomic.Pointer[bound] // of the newest catalog that was planned with
	over     atomic.Pointer[overrule]
}

// counts are one stripe of the counters, on a cache line of its own.
type counts struct {
	exact, normal, miss atomic.Uint64
	_                   [40]byte
}

// New returns a Router with an empty cache. It starts nothing.
func New(opts Options) *Router {
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = DefaultCacheBytes
	}
	if opts.MaxTextBytes <= 0 {
		opts.MaxTextBytes = query.DefaultMaxBytes
	}
	if opts.Parsers <= 0 {
		opts.Parsers = runtime.GOMAXPROCS(0)
	}
	if opts.Catalog == nil {
		opts.Catalog = func() *catalog.Catalog { return nil }
	}
	r := &Router{
		opts:     opts,
		readOnly: make(map[string]struct{}, len(opts.ReadOnlyFunctions)),
		slots:    make(chan struct{}, opts.Parsers),
		long:     make(chan struct{}, max(1, opts.Parsers/2)),
		seed:     maphash.MakeSeed(),
		cache:    newCache(opts.CacheBytes),
		scatters: newScatterCache(),
		normals:  sync.Pool{New: func() any { return new(query.Normal) }},
	}
	for _, name := range opts.ReadOnlyFunctions {
		r.readOnly[name] = struct{}{}
	}
	return r
}

// Plan says what sql is and where it may run. It never fails: what cannot be
// understood is a Write with unknown effects. The plan is shared and must not
// be changed; sql is not kept. A text seen before costs no allocation.
func (r *Router) Plan(sql []byte, ctx Context) *Plan {
	c := r.opts.Catalog()
	var version uint64
	if c != nil {
		version = r.version(c)
	}
	exact := r.hash(sql, &ctx, true)
	found := r.cache.get(exact, sql, &ctx, true)
	if found != nil && found.version == version {
		r.counts[exact>>60].exact.Add(1)
		return found.plan
	}
	if len(sql) > r.opts.MaxTextBytes {
		r.opaque.Add(1)
		p := newJudge(c, ctx, r.readOnly).plan(query.Analyze(string(sql), r.options(sql, ctx)))
		r.refuseLong(p)
		p.Tally = r.opts.Tally.Unread()
		return p
	}
	n := r.normals.Get().(*query.Normal)
	defer r.release(n)
	m := miss{catalog: c, version: version, sql: sql, ctx: ctx, exact: exact}
	if found != nil {
		m.outdated = found.plan
		return r.plan(n, &m)
	}
	if r.scan(n, sql, &ctx) {
		m.normal, m.plain = r.hash(n.Key, &ctx, false), len(n.Literals) == 0 && !n.Comments
		m.normalises = true
		if e := r.cache.get(m.normal, n.Key, &ctx, false); e != nil {
			if e.version == version {
				r.counts[m.normal>>60].normal.Add(1)
				return e.plan
			}
			m.outdated = e.plan
		}
	}
	return r.plan(n, &m)
}

// LongText is the length, in bytes, from which to parse a text takes so long that
// others should not wait for it.
const LongText = 4 << 10

// Cached returns what Plan would without parsing, nil when it would have to parse.
func (r *Router) Cached(sql []byte, ctx Context) *Plan {
	var version uint64
	if c := r.opts.Catalog(); c != nil {
		version = r.version(c)
	}
	exact := r.hash(sql, &ctx, true)
	if e := r.cache.get(exact, sql, &ctx, true); e != nil && e.version == version {
		r.counts[exact>>60].exact.Add(1)
		return e.plan
	}
	if len(sql) > r.opts.MaxTextBytes {
		return nil
	}
	n := r.normals.Get().(*query.Normal)
	defer r.release(n)
	if !r.scan(n, sql, &ctx) {
		return nil
	}
	normal := r.hash(n.Key, &ctx, false)
	if e := r.cache.get(normal, n.Key, &ctx, false); e != nil && e.version == version {
		r.counts[normal>>60].normal.Add(1)
		return e.plan
	}
	return nil
}

// scan normalises a text and reports whether plans may be found by the result.
func (r *Router) scan(n *query.Normal, sql []byte, ctx *Context) bool {
	return n.Scan(sql) && (!ctx.NonStandardStrings || !n.Backslashes) && (!ctx.UnsafeEncoding || !n.NonASCII) && normalises(n.First)
}

// CustomSettings returns the names of the custom settings that functions of the
// database may set; complete is false when there may be others, loaded while
// there is no catalog to tell. See catalog.Catalog.CustomSettings.
func (r *Router) CustomSettings() (names []string, complete, loaded bool) {
	if c := r.opts.Catalog(); c != nil {
		names, complete = c.CustomSettings()
		return names, complete, true
	}
	return nil, false, false
}

// miss is a text that has no current plan in the cache.
type miss struct {
	catalog       *catalog.Catalog
	version       uint64
	sql           []byte
	ctx           Context
	exact, normal uint64 // hashes
	// normalises: the text has a normalised key, and its statement is of a kind
	// that may be shared. plain: it holds neither literals nor comments.
	normalises, plain bool
	// outdated is a plan under an older catalog: its statement still holds.
	outdated *Plan
}

// plan makes a plan and caches it.
func (r *Router) plan(n *query.Normal, m *miss) *Plan {
	r.counts[m.exact>>60].miss.Add(1)
	var key string
	if m.normalises {
		key = string(n.Key)
	}
	var p *Plan
	j := newJudge(m.catalog, m.ctx, r.readOnly)
	explain := readExplain(m.sql)
	switch {
	case explain != nil && explain.Route:
		p = explainsRoute(len(m.sql))
	case r.opts.Rules != nil:
		st, shapes := n.AnalyzeShapes(string(m.sql), r.options(m.sql, m.ctx))
		p = j.plan(st)
		p.Exact = !m.normalises || !shareable(st)
		r.place(p, m, shapes, n.Literals)
	case m.outdated != nil:
		p = j.plan(m.outdated.Statement)
		p.Exact = m.outdated.Exact
	default:
		p = j.plan(n.Analyze(string(m.sql), r.options(m.sql, m.ctx)))
		p.Exact = !m.normalises || !shareable(p.Statement)
	}
	p.explain = explain
	p.Tally = r.tally(m, p.Statement)
	if p.Statement.Opaque {
		r.opaque.Add(1)
	}
	if m.normalises && !p.Exact {
		r.cache.put(&entry{hash: m.normal, key: key, ctx: m.ctx, version: m.version, plan: p})
	}
	if !m.normalises || p.Exact || m.plain {
		r.cache.put(&entry{hash: m.exact, key: string(m.sql), ctx: m.ctx, exact: true, version: m.version, plan: p})
	}
	return p
}

// tally returns the entry for a text that is planned.
func (r *Router) tally(m *miss, st *query.Statement) *tally.Entry {
	switch {
	case r.opts.Tally == nil:
		return nil
	case m.outdated != nil && m.outdated.Tally != nil:
		return m.outdated.Tally
	}
	f := query.FingerprintOf(m.sql, query.Options{BackslashStrings: m.ctx.NonStandardStrings, UnsafeEncoding: m.ctx.UnsafeEncoding})
	return r.opts.Tally.Entry(f.Hash, f.Text, doesOf(st, f.Text))
}

func (r *Router) options(sql []byte, ctx Context) query.Options {
	slots := r.slots
	if len(sql) >= LongText {
		slots = r.long // short ones never wait for them
	}
	return query.Options{
		MaxBytes:         r.opts.MaxTextBytes,
		BackslashStrings: ctx.NonStandardStrings,
		UnsafeEncoding:   ctx.UnsafeEncoding,
		Slots:            slots,
	}
}

// release gives a scanner back, but not one that a long text has blown up.
func (r *Router) release(n *query.Normal) {
	const keepBytes = 64 << 10
	if cap(n.Key) <= keepBytes && cap(n.Literals) <= keepBytes/16 {
		r.normals.Put(n)
	}
}

// hash mixes all that an entry is found by.
func (r *Router) hash(key []byte, ctx *Context, exact bool) uint64 {
	h := maphash.Bytes(r.seed, key)
	if ctx.SearchPath != "" {
		h = h*0x9e3779b97f4a7c15 ^ maphash.String(r.seed, ctx.SearchPath)
	}
	if ctx.Role != "" {
		h = h*0x9e3779b97f4a7c15 ^ maphash.String(r.seed, ctx.Role)
	}
	if exact {
		h ^= 0xa5a5a5a5a5a5a5a5
	}
	if ctx.NewViews != "" {
		h = h*0x9e3779b97f4a7c15 ^ maphash.String(r.seed, ctx.NewViews)
	}
	if ctx.Altered {
		h ^= 0xc3c3c3c3c3c3c3c3
	}
	if ctx.HiddenSlots > 0 {
		h ^= 0x5a5a5a5a5a5a5a5a
	}
	if ctx.NonStandardStrings {
		h ^= 0x3c3c3c3c3c3c3c3c
	}
	if ctx.UnsafeEncoding {
		h ^= 0x6969696969696969
	}
	return h
}

// normalises says whether a text that begins with this word may be planned by
// its normalised form: its literals are values and nothing else.
func normalises(first []byte) bool {
	switch string(first) {
	case "select", "insert", "update", "delete", "merge", "with", "values", "table":
		return true
	}
	return false
}

// shareable says whether a statement means the same with other literals.
func shareable(st *query.Statement) bool {
	if st.Opaque || len(st.Commands) == 0 {
		return false
	}
	for i := range st.Commands {
		c := &st.Commands[i]
		if c.Kind != query.KindSelect && c.Kind != query.KindDML || len(c.Settings) > 0 || len(c.SettingsRead) > 0 {
			return false
		}
	}
	return true
}

// Stats are a Router's counters since it was made, and the state of its cache.
type Stats struct {
	// ExactHits and NormalHits were answered by the cache; Misses were planned
	// anew, Opaque of them not understood.
	ExactHits, NormalHits, Misses, Opaque uint64
	// Evictions are entries that gave way to others.
	Evictions uint64
	// Entries and Bytes are in the cache now; LimitBytes is its bound.
	Entries, Bytes, LimitBytes int64
}

// Stats returns the counters.
func (r *Router) Stats() Stats {
	s := Stats{
		Opaque:     r.opaque.Load(),
		Evictions:  r.cache.evictions.Load(),
		Entries:    r.cache.entries.Load(),
		Bytes:      r.cache.bytes.Load(),
		LimitBytes: r.cache.limit,
	}
	for i := range r.counts {
		s.ExactHits += r.counts[i].exact.Load()
		s.NormalHits += r.counts[i].normal.Load()
		s.Misses += r.counts[i].miss.Load()
	}
	return s
}
