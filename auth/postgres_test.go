package auth

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/config"
	"shardproxy/internal/pgtest"
)

// server is a PostgreSQL of the tests with a way to look users up on it.
type server struct {
	*pgtest.Database
	t     *testing.T
	dials int
	mu    sync.Mutex
}

// newServer returns a server whose roles may be changed: what create makes is
// dropped when the test ends.
func newServer(t *testing.T) *server {
	t.Helper()
	return &server{Database: pgtest.Shared(t), t: t}
}

// create makes roles; each is a name and the options of CREATE ROLE.
func (s *server) create(roles ...[2]string) {
	s.t.Helper()
	var create, drop []string
	for _, r := range roles {
		create = append(create, "CREATE ROLE "+r[0]+" "+r[1])
		drop = append(drop, r[0])
	}
	s.Exec(strings.Join(create, ";\n"))
	s.t.Cleanup(func() { s.Exec("DROP ROLE " + strings.Join(drop, ", ")) })
}

// querier returns a ServerQuerier that logs in as user.
func (s *server) querier(user string, limit int) *ServerQuerier {
	q := NewServerQuerier(func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		if database != "shop" {
			return nil, fmt.Errorf("dialled for %q", database)
		}
		s.mu.Lock()
		s.dials++
		s.mu.Unlock()
		return pgconn.Connect(ctx, s.DSN(user))
	}, limit)
	s.t.Cleanup(func() { _ = q.Close() })
	return q
}

func (s *server) dialled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

const (
	configQuery    = config.DefaultAuthQuery
	pgbouncerQuery = "SELECT usename, passwd FROM pg_shadow WHERE usename = $1"
)

// oddPasswords are passwords on which SASLprep implementations differ.
var oddPasswords = []string{
	"plain", "tränen", "\u00a0nbsp", "zero\u200bwidth", "soft\u00adhyphen", "\u00ad", "\u2168roman", "\ufb01ligature",
	"\u212bngstrom", "e\u0301", "\u0340tone", "\u0627\u0644", "a\u0627", "\u06271", "control\u0001é", "unassigned\u0221",
	"\U0001F600", "private\ue000", "\ufffdreplaced", "tag\U000e0001", "ideographic\u3000space", "ﷺ", "\u1680ogham", "joiner\u200d",
	// Forbidden for one reason each; the no-break space shows that nothing was mapped.
	"a\u0627\u00a0", "\u06271\u00a0", "unassigned\u0221\u00a0", "control\u0085\u00a0", "private\ue000\u00a0", "tone\u0340\u00a0",
	"nonchar\ufdd0\u00a0", "plain\ufffc\u00a0", "bidi\u202e\u00a0", "idc\u2ff0\u00a0", "e\u0301\u00a0",
}

// TestVerifiersOfPostgreSQL: what PostgreSQL stores for a password is what we
// derive from it with the same salt, whatever SASLprep thinks of it.
func TestVerifiersOfPostgreSQL(t *testing.T) {
	s := newServer(t)
	var roles []string
	var create [][2]string
	for i, password := range oddPasswords {
		roles = append(roles, fmt.Sprintf("odd_%d", i))
		create = append(create, [2]string{roles[i], "LOGIN PASSWORD '" + password + "'"})
	}
	s.create(create...)
	stored := map[string]string{}
	for _, row := range s.Rows("SELECT rolname, rolpassword FROM pg_authid WHERE rolname = ANY($1)", roles) {
		stored[row[0]] = row[1]
	}
	for i, password := range oddPasswords {
		k, _, err := parseVerifier(stored[roles[i]])
		if err != nil {
			t.Errorf("%q: %v", password, err)
			continue
		}
		if k.String() != stored[roles[i]] {
			t.Errorf("%q is printed as %q", stored[roles[i]], k)
		}
		ours, err := deriveKeys(password, k.salt, k.iterations)
		if err != nil || !ours.equal(k) {
			t.Errorf("%+q: our keys are not PostgreSQL's (%v)", password, err)
		}
	}
}

// TestOurVerifierInPostgreSQL: PostgreSQL takes HashPassword's result as it is.
func TestOurVerifierInPostgreSQL(t *testing.T) {
	s := newServer(t)
	verifier := HashPassword("from us")
	s.create([2]string{"hashed_by_us", "LOGIN PASSWORD '" + verifier + "'"})
	if got := s.Value("SELECT rolpassword FROM pg_authid WHERE rolname = 'hashed_by_us'"); got != verifier {
		t.Fatalf("PostgreSQL hashed it again: %q", got)
	}
	dsn := strings.Replace(s.DSN("app"), "app:app-secret@", "hashed_by_us:from us@", 1)
	dsn = strings.Replace(dsn, "from us", "from%20us", 1)
	conn := pgtest.Connect(t, dsn)
	if got := conn.Config().User; got != "hashed_by_us" {
		t.Errorf("connected as %q", got)
	}
}

// TestAuthQueryOnPostgreSQL logs in through auth_query against real roles.
func TestAuthQueryOnPostgreSQL(t *testing.T) {
	s := newServer(t)
	s.create([][2]string{
		{"aq_scram", "LOGIN PASSWORD 'secret'"},
		{"aq_valid", "LOGIN PASSWORD 'secret' VALID UNTIL '2999-12-31 23:59:59.5+05'"},
		{"aq_far", "LOGIN PASSWORD 'secret' VALID UNTIL '29990-12-31'"},
		{"aq_forever", "LOGIN PASSWORD 'secret' VALID UNTIL 'infinity'"},
		{"aq_expired", "LOGIN PASSWORD 'secret' VALID UNTIL '2020-01-01'"},
		{"aq_ancient", "LOGIN PASSWORD 'secret' VALID UNTIL '0044-03-15 BC'"},
		{"aq_never", "LOGIN PASSWORD 'secret' VALID UNTIL '-infinity'"},
		{"aq_nologin", "NOLOGIN PASSWORD 'secret'"},
		{"aq_null", "LOGIN"},
		{`"aq quote'd ""x"`, "LOGIN PASSWORD 'secret'"},
		{"aq_md5", "LOGIN"},
	}...)
	s.Exec("SET password_encryption = md5; ALTER ROLE aq_md5 PASSWORD 'secret'")
	s.Exec("ALTER ROLE aq_scram SET search_path = public; ALTER DATABASE " + s.Name + " SET datestyle = 'German, DMY'; ALTER DATABASE " + s.Name + " SET timezone = 'Asia/Kolkata'")

	for name, query := range map[string]string{"config": configQuery, "pgbouncer": pgbouncerQuery} {
		cfg := querySettings()
		cfg.Auth.AuthQuery.Query, cfg.Auth.AuthQuery.Timeout = query, 20*time.Second
		cfg.Auth.Rules = []config.Rule{{Method: config.MethodMD5}} // SCRAM where there is a verifier
		s.dials = 0
		a := mustNew(t, Options{Config: cfg, Querier: s.querier("postgres", 0)})
		for user, cause := range map[string]error{
			"aq_scram": nil, "aq_valid": nil, "aq_far": nil, "aq_forever": nil, `aq quote'd "x`: nil, "aq_md5": nil,
			"aq_expired": errExpired, "aq_ancient": errExpired, "aq_never": errExpired,
			"aq_nologin": errUnknown, "aq_null": errNoPassword, "aq_ghost": errUnknown,
			"AQ_SCRAM": errUnknown, "aq_scram'--": errUnknown, "": nil,
		} {
			if user == "" {
				continue
			}
			t.Run(name+"/"+user, func(t *testing.T) {
				_, err := login(t, a, client(user, "secret"), user)
				if cause != nil {
					wantFailed(t, err, user, cause)
				} else if err != nil {
					t.Fatal(err)
				}
				_, err = login(t, a, client(user, "wrong"), user)
				if err == nil {
					t.Error("a wrong password opens")
				}
			})
		}
		if s.dialled() != 1 {
			t.Errorf("%d connections were opened for lookups one after the other", s.dialled())
		}
	}
}

// TestAuthQueryFunction: the usual set-up without a superuser; only the
// function may read the hashes.
func TestAuthQueryFunction(t *testing.T) {
	s := newServer(t)
	s.create([2]string{"fn_user", "LOGIN PASSWORD 'secret'"})
	s.create([2]string{"fn_expired", "LOGIN PASSWORD 'secret' VALID UNTIL '2020-01-01'"})
	s.Exec(`CREATE SCHEMA lookup;
		CREATE FUNCTION lookup.get(INOUT name text, OUT hash text) RETURNS SETOF record LANGUAGE sql SECURITY DEFINER
			SET search_path = pg_catalog, pg_temp AS 'SELECT usename, passwd FROM pg_shadow WHERE usename = $1';
		REVOKE ALL ON FUNCTION lookup.get(text) FROM public;
		GRANT USAGE ON SCHEMA lookup TO app; GRANT EXECUTE ON FUNCTION lookup.get(text) TO app`)
	q := s.querier("app", 0)
	ctx := t.Context()
	rec, found, err := q.QueryUser(ctx, "shop", "SELECT * FROM lookup.get($1)", "fn_user")
	if err != nil || !found || !strings.HasPrefix(rec.Password.Reveal(), "SCRAM-SHA-256$") || !rec.ValidUntil.IsZero() {
		t.Errorf("%+v, %t, %v", rec, found, err)
	}
	// The function says nothing of VALID UNTIL, as PgBouncer's did not.
	rec, found, err = q.QueryUser(ctx, "shop", "SELECT * FROM lookup.get($1)", "fn_expired")
	if err != nil || !found || !rec.ValidUntil.Equal(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v, %t, %v", rec, found, err)
	}
	if _, found, err := q.QueryUser(ctx, "shop", "SELECT * FROM lookup.get($1)", "nobody"); err != nil || found {
		t.Errorf("nobody: %t, %v", found, err)
	}
	if _, _, err := q.QueryUser(ctx, "shop", pgbouncerQuery, "fn_user"); err == nil {
		t.Error("app can read pg_shadow?")
	}
}

// TestAuthQuerySearchPath: objects that stand in front of PostgreSQL's own do
// not come into the query, whatever the role's search_path says.
func TestAuthQuerySearchPath(t *testing.T) {
	s := newServer(t)
	s.create([2]string{"sp_user", "LOGIN PASSWORD 'secret'"})
	s.create([2]string{"sp_looker", "LOGIN SUPERUSER PASSWORD 'look'"})
	s.Exec(`CREATE TABLE public.pg_shadow (usename text, passwd text);
		INSERT INTO public.pg_shadow VALUES ('sp_user', 'md5' || md5('evil' || 'sp_user'));
		CREATE FUNCTION public.eq(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.eq);
		ALTER ROLE sp_looker SET search_path = public, pg_catalog`)
	q := NewServerQuerier(func(ctx context.Context, _ string) (*pgconn.PgConn, error) {
		return pgconn.Connect(ctx, strings.Replace(s.DSN("app"), "app:app-secret@", "sp_looker:look@", 1))
	}, 1)
	t.Cleanup(func() { _ = q.Close() })
	for range 2 { // a kept connection, too
		rec, found, err := q.QueryUser(t.Context(), "shop", pgbouncerQuery, "sp_user")
		if err != nil || !found || !strings.HasPrefix(rec.Password.Reveal(), "SCRAM-SHA-256$") {
			t.Fatalf("%q, %t, %v", rec.Password.Reveal(), found, err)
		}
	}
	rec, found, err := q.QueryUser(t.Context(), "shop", "SELECT pg_catalog.current_setting('search_path') WHERE $1 <> ''", "sp_user")
	if err != nil || !found || rec.Password.Reveal() != "pg_catalog, pg_temp" {
		t.Errorf("search_path is %q, %v", rec.Password.Reveal(), err)
	}
}

func TestAuthQueryWrongResults(t *testing.T) {
	s := newServer(t)
	q := s.querier("postgres", 1)
	for query, part := range map[string]string{
		"SELECT 'someone', 'md5x' WHERE $1 <> ''":                                        "another user",
		"SELECT 'a', 'b', 'c' WHERE $1 <> ''":                                            "must return",
		"SELECT usename, passwd FROM pg_shadow WHERE $1 <> '' UNION ALL SELECT 'a', 'b'": "more than one row",
		"SELECT g::text FROM generate_series(1, 100000) g WHERE $1 <> ''":                "more than one row",
		"SELECT nonsense($1)":                             "nonsense",
		"SELECT FROM pg_class WHERE $1 = relname LIMIT 0": "",
		"SELECT 1/0 WHERE $1 <> ''":                       "division",
		"SELECT rolpassword FROM pg_authid":               "",
		"SELECT 'x'::text, now(), now() WHERE $1 <> ''":   "",
	} {
		_, found, err := q.QueryUser(t.Context(), "shop", query, "postgres")
		if found {
			t.Errorf("%s: found somebody", query)
		}
		if part != "" && (err == nil || !strings.Contains(err.Error(), part)) {
			t.Errorf("%s: %v, want %s", query, err, part)
		}
	}
	// None of that spoils the next lookup, and none of it opened more than one
	// connection at a time.
	rec, found, err := q.QueryUser(t.Context(), "shop", configQuery, "app")
	if err != nil || !found || rec.Password.Empty() {
		t.Errorf("afterwards: %+v, %t, %v", rec, found, err)
	}
}
