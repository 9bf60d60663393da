package trace

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Request is what a client has asked, and what became of it. Times are since Began.
type Request struct {
	Parent    Context // zero: the request begins a trace
	Began     time.Time
	Took      time.Duration
	Database  string
	Session   uint64
	Statement string // without values, as SHOW QUERIES has it; "" when it is not known
	// Text has Statement told as a whole.
	Text        bool
	Statements  int    // how many the request ran
	Fingerprint string // of Statement; "" for none
	SQLState    string // of the last error; "" for none
	Way         string // how a query over several shards was answered
	Rows        int64
	Steps       []Step
}

// StepKind is what a step is.
type StepKind uint8

// The kinds of steps.
const (
	Gate    StepKind = iota // it waited for the shard to have a safe home
	Acquire                 // it waited for a server connection
	Run                     // it ran on a server
)

// Step is a part of a request.
type Step struct {
	Kind    StepKind
	Shard   string
	Address string // of the node, host:port or the directory of a socket with it; "" when it is not known
	From    time.Duration
	To      time.Duration
	Failed  bool
}

// spans returns the request as spans, the request's own first.
func (r *Request) spans() []*tracepb.Span {
	trace := r.Parent.Trace
	if !r.Parent.Valid() {
		trace = newTrace()
	}
	id := newSpan()
	operation, collection := summarize(r.Statement)
	own := &tracepb.Span{
		TraceId: trace[:], SpanId: id[:], Kind: tracepb.Span_SPAN_KIND_SERVER, Name: r.name(operation, collection),
		StartTimeUnixNano: uint64(r.Began.UnixNano()), EndTimeUnixNano: uint64(r.Began.Add(r.Took).UnixNano()),
	}
	if r.Parent.Valid() {
		own.ParentSpanId = r.Parent.Span[:]
	}
	a := attributes{}
	a.text("db.system.name", "postgresql")
	a.text("db.namespace", r.Database)
	if r.Statements == 1 {
		a.text("db.operation.name", operation)
		a.text("db.collection.name", collection)
		a.text("db.query.summary", strings.TrimSpace(operation+" "+collection))
		a.text("shardproxy.fingerprint", r.Fingerprint)
		if r.Text {
			a.text("db.query.text", r.Statement)
		}
	} else if r.Statements > 1 {
		a.number("db.operation.batch.size", int64(r.Statements))
	}
	a.number("db.response.returned_rows", r.Rows)
	a.number("shardproxy.session", int64(r.Session))
	a.text("shardproxy.way", r.Way)
	if r.SQLState != "" {
		a.text("db.response.status_code", r.SQLState)
		a.text("error.type", r.SQLState)
		own.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	}
	own.Attributes = a
	all := []*tracepb.Span{own}
	for i := range r.Steps {
		all = append(all, r.Steps[i].span(r.Began, trace, id))
	}
	return all
}

// name follows the conventions: the summary, or what is nearest.
func (r *Request) name(operation, collection string) string {
	switch {
	case r.Statements > 1:
		return "BATCH"
	case operation == "":
		return "postgresql"
	case collection == "":
		return operation
	}
	return operation + " " + collection
}

func (s *Step) span(began time.Time, trace [16]byte, parent [8]byte) *tracepb.Span {
	id := newSpan()
	out := &tracepb.Span{
		TraceId: trace[:], SpanId: id[:], ParentSpanId: parent[:], Kind: tracepb.Span_SPAN_KIND_INTERNAL,
		StartTimeUnixNano: uint64(began.Add(s.From).UnixNano()), EndTimeUnixNano: uint64(began.Add(max(s.To, s.From)).UnixNano()),
	}
	a := attributes{}
	switch s.Kind {
	case Gate:
		out.Name = "gate"
	case Acquire:
		out.Name = "acquire"
	default:
		out.Name, out.Kind = "shard "+s.Shard, tracepb.Span_SPAN_KIND_CLIENT
		a.text("db.system.name", "postgresql")
		host, port := divide(s.Address)
		a.text("server.address", host)
		a.number("server.port", port)
	}
	a.text("shardproxy.shard", s.Shard)
	if s.Failed {
		out.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	}
	out.Attributes = a
	return out
}

// divide divides host:port; port is 0 when there is none.
func divide(address string) (host string, port int64) {
	at := strings.LastIndexByte(address, ':')
	if at < 0 {
		return address, 0
	}
	for _, c := range address[at+1:] {
		if c < '0' || c > '9' {
			return address, 0
		}
		port = port*10 + int64(c-'0')
	}
	return strings.Trim(address[:at], "[]"), port
}

// attributes are those of a span. What is empty, or 0, is left out.
type attributes []*common.KeyValue

func (a *attributes) text(key, value string) {
	if value != "" {
		*a = append(*a, &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(value, "\uFFFD")}}})
	}
}

func (a *attributes) number(key string, value int64) {
	if value != 0 {
		*a = append(*a, &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: value}}})
	}
}

func newTrace() (id [16]byte) {
	for id == [16]byte{} {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpan() (id [8]byte) {
	for id == [8]byte{} {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
