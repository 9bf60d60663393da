package admin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"shardproxy/audit"
	"shardproxy/wire"
)

// orderBytes bounds what is sent with an order.
const orderBytes = 64 << 10

// orderLogged is how much of that the log has.
const orderLogged = 2 << 10

// tokenHeader is where an order has its token.
const tokenHeader = "X-Csrf-Token"

// orders carries out what admin users order over HTTP. It is safe for
// concurrent use.
type orders struct {
	opt Options
	key []byte // of the tokens; dies with the process
}

func newOrders(o Options) *orders {
	key := make([]byte, 32)
	rand.Read(key) // never fails: crypto/rand ends the process instead
	return &orders{opt: o, key: key}
}

// apiSession is /api/v1/session.
type apiSession struct {
	User   string  `json:"user" doc:"who asks; empty where no password is asked for"`
	Role   string  `json:"role" doc:"admin, or monitor: may look"`
	Token  *string `json:"csrf_token" doc:"what this user's orders have in X-CSRF-Token, while this process lives; null for who may not steer"`
	Orders bool    `json:"may_order" doc:"whether orders are taken from this user"`
}

// apiOrder is what is sent with an order about moves.
type apiOrder struct {
	Database string  `json:"database" doc:"whose moves; may be left out where one database has several shards"`
	IDs      []int64 `json:"ids" doc:"the moves that rollback and complete are about; none: all"`
}

// apiDone is the answer to an order that was carried out.
type apiDone struct {
	Database string `json:"database" doc:"whose moves were meant"`
	Said     string `json:"said" doc:"what came of it, in words"`
}

// apiRefusal is the answer to an order that was not.
type apiRefusal struct {
	Code    string `json:"sqlstate" doc:"as the console has it"`
	Message string `json:"message" doc:"why not"`
	Detail  string `json:"detail" doc:"more of it; may be empty"`
	Hint    string `json:"hint" doc:"what may help; may be empty"`
}

// moveOrders are the orders that are about moves which were planned.
func moveOrders() []MoveWanted {
	return []MoveWanted{MovePause, MoveResume, MoveAbort, MoveRollback, MoveComplete}
}

// routes are the paths by which moves are steered.
func (o *orders) routes() []route {
	all := []route{{"GET /api/v1/session", mayLook, "", http.HandlerFunc(o.session)}}
	if o.opt.Steerer == nil {
		return all
	}
	for _, wanted := range moveOrders() {
		all = append(all, route{"POST /api/v1/moves/" + string(wanted), maySteer, "", o.steers(answerTimeout, func(ctx context.Context, body []byte) (any, order, error) {
			return o.move(ctx, wanted, body)
		})})
	}
	for _, of := range []struct {
		name  string
		start bool
		bound time.Duration
	}{{"plan", false, planTimeout}, {"start", true, startTimeout}} {
		all = append(all, route{"POST /api/v1/moves/" + of.name, maySteer, "", o.steers(of.bound, func(ctx context.Context, body []byte) (any, order, error) {
			return o.plan(ctx, of.start, body)
		})})
	}
	return all
}

// session says who asks, and gives the token to who may steer.
func (o *orders) session(w http.ResponseWriter, r *http.Request) {
	id := callerOf(r)
	s := apiSession{User: id.User, Role: "monitor"}
	if maySteer.heldBy(id) {
		token := o.token(id.User)
		s.Role, s.Token, s.Orders = "admin", &token, o.opt.Steerer != nil
	}
	o.write(w, http.StatusOK, s)
}

// token is a user's, in this process.
func (o *orders) token(user string) string {
	mac := hmac.New(sha256.New, o.key)
	_, _ = io.WriteString(mac, user) // a hash takes all
	return hex.EncodeToString(mac.Sum(nil))
}

// order is what the log has of an order.
type order struct {
	text     string
	database string
}

// steers has an order carried out that comes from our own page, from a user who
// was given its token. It is logged before and afterwards, whatever comes of it.
// It may take as long as bound.
func (o *orders) steers(bound time.Duration, do func(ctx context.Context, body []byte) (any, order, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := callerOf(r)
		if why := o.foreign(r, id.User); why != "" {
			o.opt.Logger.Warn("admin order refused", "user", id.User, "client", r.RemoteAddr, "path", r.URL.Path, "origin", r.Header.Get("Origin"), "error", why)
			o.opt.Audit.Order(&audit.Order{Session: audit.Session{User: id.User, Client: r.RemoteAddr}, By: "http", Text: r.URL.Path, Outcome: audit.Refused, SQLState: "42501", Reason: why})
			o.write(w, http.StatusForbidden, apiRefusal{Code: "42501", Message: why})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, orderBytes))
		if err != nil {
			o.write(w, http.StatusBadRequest, apiRefusal{Code: "08P01", Message: "the order cannot be read"})
			return
		}
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Time{}) // it would end the request
		_ = rc.SetWriteDeadline(time.Now().Add(bound + answerTimeout))
		ctx, cancel := context.WithTimeout(r.Context(), bound)
		defer cancel()
		what := strings.ReplaceAll(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/", " ")
		log := o.opt.Logger.With("user", id.User, "client", r.RemoteAddr)
		line := audit.Order{Session: audit.Session{User: id.User, Client: r.RemoteAddr}, By: "http", Text: what + " " + string(body[:min(len(body), orderLogged)]), Outcome: audit.Begun}
		o.opt.Audit.Order(&line)
		log.Info("admin order", "command", what, "order", string(body[:min(len(body), orderLogged)]))
		began := o.opt.Clock()
		answer, ordered, err := do(ctx, body)
		took := o.opt.Clock().Sub(began)
		line.Database, line.Took, line.Outcome, line.Said = ordered.database, took, audit.Done, ordered.text
		if err != nil {
			we := wire.AsError(steerError(err, ordered.database))
			line.Outcome, line.SQLState, line.Reason, line.Said = audit.Failed, we.Code, we.Message, ""
			o.opt.Audit.Order(&line)
			log.Info("admin order failed", "command", what, "database", ordered.database, "error", we.Message, "detail", we.Detail, "cause", errors.Unwrap(we), "took", took)
			o.write(w, orderStatus(we.Code), apiRefusal{we.Code, we.Message, we.Detail, we.Hint})
			return
		}
		log.Info("admin order done", "command", what, "database", ordered.database, "said", ordered.text, "took", took)
		o.opt.Audit.Order(&line)
		o.write(w, http.StatusOK, answer)
	})
}

// foreign says why an order is not from our own page; "" when it is. Browsers
// tell where a request comes from, and a page of another origin cannot read the
// token.
func (o *orders) foreign(r *http.Request, user string) string {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if site != "" && site != "same-origin" {
		return "the order comes from another site"
	}
	if origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return "the order comes from another origin"
		}
	}
	if site == "" && origin == "" {
		return "the order does not say where it comes from: it needs Origin"
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return "an order is application/json"
	}
	if !hmac.Equal([]byte(r.Header.Get(tokenHeader)), []byte(o.token(user))) {
		return "the order lacks the token of this user and process: reload the page"
	}
	return ""
}

// move pauses, resumes or ends moves.
func (o *orders) move(ctx context.Context, wanted MoveWanted, body []byte) (any, order, error) {
	var in apiOrder
	if err := decodeOrder(body, &in); err != nil {
		return nil, order{}, err
	}
	for _, id := range in.IDs {
		if id < 1 || wanted != MoveRollback && wanted != MoveComplete {
			return nil, order{}, wire.Errorf("42601", "only rollback and complete take ids of moves, which are above 0")
		}
	}
	database, werr := movingIn(o.opt.Source.Databases(), in.Database, in.Database != "")
	if werr != nil {
		return nil, order{}, werr
	}
	said, err := o.opt.Steerer.OrderMoves(ctx, MoveOrder{Database: database, Wanted: wanted, IDs: in.IDs})
	return apiDone{database, said}, order{said, database}, err
}

func errNoPlan() *wire.Error {
	return wire.Errorf("42601", "what is begun is a plan that was looked at: plan is missing")
}

// decodeOrder reads one JSON object without fields that nobody knows.
func decodeOrder(body []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.More() {
		err = errors.New("there is more behind it")
	}
	if err != nil {
		return wire.Errorf("42601", "the order is not as docs/dashboard.md has it").WithDetail("%s", err.Error())
	}
	return nil
}

// orderStatus is HTTP's word for a SQLSTATE of an order.
func orderStatus(code string) int {
	switch {
	case code == "42501":
		return http.StatusForbidden
	case code == "3D000" || code == "42704":
		return http.StatusNotFound
	case strings.HasPrefix(code, "42") || strings.HasPrefix(code, "22"):
		return http.StatusBadRequest
	case strings.HasPrefix(code, "55"):
		return http.StatusConflict
	case strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57"):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func (o *orders) write(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		o.opt.Logger.Error("answer as JSON failed", "error", err)
		status, data = http.StatusInternalServerError, []byte(fmt.Sprintf("%q", "internal error"))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // it may have gone
}
