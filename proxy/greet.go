package proxy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"shardproxy/pool"
	"shardproxy/wire"
)

// welcome is what a login is told of the server: the values a server reported
// under the client's start-up settings.
type welcome struct {
	server *pool.Reported // of the server that was asked
	node   int
	values map[string]string

	// What the first session of the kind had, to be shared by the others.
	base    *pool.Settings
	appName *string
	scope   string
}

// welcomesMax bounds the logins that are remembered.
const welcomesMax = 1024

// greet tells the client its server's parameters and its cancel key. The first
// login of a kind asks a server, which also proves the start-up settings.
func (s *session) greet() error {
	key := welcomeKey{s.user.ServerUser(), settingsKey(s.base)}
	s.db.mu.Lock()
	w := s.db.welcomes[key]
	s.db.mu.Unlock()
	if w == nil || s.user.Reported(w.node) != w.server {
		// None yet, or the node's defaults have changed since.
		var err error
		if w, err = s.ask(); err != nil {
			return err
		}
		w.base, w.appName = s.withSearchPath(w.server.SearchPath), s.appName.Load()
		s.greeted = w
		s.setScope()
		w.scope = s.scope
		s.db.mu.Lock()
		if s.db.welcomes == nil || len(s.db.welcomes) >= welcomesMax {
			s.db.welcomes = map[welcomeKey]*welcome{}
		}
		s.db.welcomes[key] = w
		s.db.mu.Unlock()
	}
	s.greeted = w
	s.share()
	if s.places != nil {
		s.adoptSettings(s.settings) // which say now where names are found
	}
	s.dateStyle = w.values["DateStyle"]
	s.setScope()
	out := s.client.Output()
	for _, name := range slices.Sorted(maps.Keys(w.values)) {
		out = wire.AppendParameterStatus(out, name, w.values[name])
	}
	out = wire.AppendBackendKeyData(out, s.key.PID, []byte(s.key.Secret))
	out = wire.AppendReadyForQuery(out, 'I')
	s.client.SetOutput(out)
	if err := s.client.Flush(); err != nil {
		return errEnded
	}
	return nil
}

// withSearchPath returns the start-up packet's settings with the search_path that
// servers would have, in a database of several shards: there names must mean the
// same on every connection, and it must be known what.
func (s *session) withSearchPath(byDefault string) *pool.Settings {
	if _, set := s.base.Get("search_path"); s.places == nil || set || byDefault == "" {
		return s.base
	}
	return s.base.With(pool.Setting{Name: "search_path", Text: byDefault, Literal: true})
}

// share replaces what is equal in sessions of one kind by one copy.
func (s *session) share() {
	w := s.greeted
	for _, st := range [...]**pool.Settings{&s.settings, &s.txBase} {
		if *st == s.base {
			*st = w.base
		}
	}
	s.base = w.base
	if own := s.appName.Load(); own != nil && w.appName != nil && *own == *w.appName {
		s.appName.Store(w.appName)
	}
}

// ask takes a connection with the session's settings and notes what it reports.
func (s *session) ask() (*welcome, error) {
	s.learning = map[string]string{}
	if err := s.acquire(need{read: true, opaque: s.mode == ModeSession}); err != nil {
		return nil, err
	}
	for s.lease != nil && !s.owed.empty() {
		before := s.steps
		if err := s.pumpServer(); err != nil {
			return nil, err
		}
		if err := s.flush(); err != nil {
			return nil, err
		}
		if s.lease == nil || s.owed.empty() {
			break
		}
		if s.steps == before {
			if err := s.obeyWaiting(); err != nil {
				return nil, err
			}
			if err := s.park(); err != nil {
				return nil, err
			}
		}
	}
	if s.lease == nil {
		return nil, wire.Fatal("08006", "the connection to the server was lost")
	}
	w := &welcome{server: s.lease.Reported, node: s.lease.Node, values: maps.Clone(s.lease.Reported.Values)}
	maps.Copy(w.values, s.learning)
	s.learning = nil
	// A client behind the proxy is always where it can write.
	w.values["in_hot_standby"] = "off"
	s.endHold()
	s.fresh, s.read, s.exclude, s.tries = false, false, 0, 0
	if s.mode != ModeSession {
		s.giveBack(pool.Clean)
	}
	return w, nil
}

// baseSettings turns the parameters of a start-up packet into settings. As with
// PostgreSQL the options count less than the others, wherever they stand.
func baseSettings(start *wire.Startup) (*pool.Settings, error) {
	options, _ := start.Get("options")
	items, err := optionSettings(options)
	if err != nil {
		return nil, err
	}
	for _, p := range start.Params {
		switch p.Name {
		case "user", "database", "replication", "options":
		default:
			items = append(items, pool.Setting{Name: strings.ToLower(p.Name), Text: p.Value, Literal: true})
		}
	}
	var st *pool.Settings
	for _, it := range items {
		if old, ok := st.Get(it.Name); ok && it.Name == "datestyle" {
			it.Text = joinDateStyles(old.Text, it.Text)
		}
		st = st.With(it)
	}
	if _, ok := st.Get("session_authorization"); ok {
		return nil, wire.Fatal("0A000", "session_authorization cannot be set by a start-up packet").
			WithHint("PostgreSQL ignores it there. Leave it out, or use SET SESSION AUTHORIZATION.")
	}
	encoding, _ := st.Get("client_encoding")
	for _, it := range st.All() {
		if e := refusedSetting(it.Name, it.Text); e != nil {
			e.Severity = "FATAL"
			return nil, e
		}
		st = st.With(literal(it.Name, it.Text, encoding.Text))
	}
	return st, nil
}

// joinDateStyles returns what DateStyle is when it is set to one value and then to
// another, each of which may leave a half as it is.
func joinDateStyles(first, second string) string {
	oldStyle, oldOrder := splitDateStyle(first)
	style, order := splitDateStyle(second)
	return strings.Trim(cmp.Or(style, oldStyle)+", "+cmp.Or(order, oldOrder), ", ")
}

// splitDateStyle returns the halves of a DateStyle, "" for one that it does not state.
func splitDateStyle(v string) (style, order string) {
	for word := range strings.SplitSeq(strings.ToLower(v), ",") {
		switch word = strings.TrimSpace(word); {
		case word == "":
		case word == "us" || slices.ContainsFunc([]string{"dmy", "mdy", "ymd", "euro", "noneuro"}, func(o string) bool { return strings.HasPrefix(word, o) }):
			order = word
		default:
			style = word
		}
	}
	if style == "german" && order == "" {
		order = "dmy"
	}
	return style, order
}

// optionSettings reads the options parameter: -c name=value and --name=value,
// with backslash escaping, as PostgreSQL's pg_split_opts does.
func optionSettings(v string) ([]pool.Setting, error) {
	var items []pool.Setting
	args := splitOptions(v)
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-c" && i+1 < len(args):
			i++
			a = args[i]
		case strings.HasPrefix(a, "-c"):
			a = a[2:]
		case strings.HasPrefix(a, "--"):
			a = a[2:]
		default:
			return nil, wire.Fatal("42601", "invalid command-line argument for server process: %s", a).
				WithHint("Only -c name=value and --name=value are supported.")
		}
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return nil, wire.Fatal("42601", "-c %s requires a value", a)
		}
		name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
		items = append(items, pool.Setting{Name: name, Text: value, Literal: true})
	}
	return items, nil
}

func splitOptions(v string) (args []string) {
	var b []byte
	in, escaped := false, false
	for i := range len(v) { // by bytes: the encoding is not known
		switch c := v[i]; {
		case escaped:
			b = append(b, c)
			escaped = false
		case c == '\\':
			in, escaped = true, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f':
			if in {
				args = append(args, string(b))
				b = b[:0]
			}
			in = false
		default:
			b = append(b, c)
			in = true
		}
	}
	if in {
		args = append(args, string(b))
	}
	return args
}
