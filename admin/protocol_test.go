package admin

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// raw is a client that speaks the protocol by hand.
type raw struct {
	t    *testing.T
	conn net.Conn
	*pgproto3.Frontend
}

func dialRaw(t *testing.T, s *site, user string, protocol uint32) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	r := &raw{t, conn, pgproto3.NewFrontend(conn, conn)}
	r.Send(&pgproto3.StartupMessage{ProtocolVersion: protocol, Parameters: map[string]string{
		"user": user, "database": "pgbouncer", "client_encoding": "LATIN1", "options": "-c x=y", "timezone": "Europe/Berlin"}})
	return r
}

// until sends what is queued and returns the answers in short, up to the n-th
// ReadyForQuery, or to the end of the connection.
func (r *raw) until(n int) string {
	r.t.Helper()
	if err := r.Flush(); err != nil {
		r.t.Fatal(err)
	}
	return r.answers(n)
}

func (r *raw) answers(n int) string {
	var got []string
	for n > 0 {
		m, err := r.Receive()
		if err != nil {
			return strings.Join(append(got, "end"), " ")
		}
		switch m := m.(type) {
		case *pgproto3.ReadyForQuery:
			got = append(got, fmt.Sprintf("Z:%c", m.TxStatus))
			n--
		case *pgproto3.ErrorResponse:
			got = append(got, m.Severity+":"+m.Code)
		case *pgproto3.CommandComplete:
			got = append(got, "C:"+string(m.CommandTag))
		case *pgproto3.ParameterStatus:
			got = append(got, "S:"+m.Name+"="+m.Value)
		case *pgproto3.RowDescription:
			got = append(got, fmt.Sprintf("T:%d", len(m.Fields)))
		case *pgproto3.ParameterDescription:
			got = append(got, fmt.Sprintf("t:%d", len(m.ParameterOIDs)))
		case *pgproto3.BackendKeyData:
			got = append(got, fmt.Sprintf("K:%d", len(m.SecretKey)))
		default:
			got = append(got, strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
		}
	}
	return strings.Join(got, " ")
}

// login returns a raw client that has been greeted.
func login(t *testing.T, s *site, user string) *raw {
	t.Helper()
	r := dialRaw(t, s, user, pgproto3.ProtocolVersion30)
	if got := r.until(1); !strings.HasSuffix(got, "K:4 Z:I") {
		t.Fatal(got)
	}
	return r
}

func TestGreeting(t *testing.T) {
	s := newSite(t)
	got := dialRaw(t, s, "ops", pgproto3.ProtocolVersion30).until(1)
	for _, want := range []string{"AuthenticationOk ", " S:server_version=1.25.1/shardproxy 0.9.1 ", " S:client_encoding=UTF8 ",
		" S:integer_datetimes=on ", " S:standard_conforming_strings=on ", " S:DateStyle=ISO, MDY ", " S:TimeZone=Europe/Berlin ",
		" S:session_authorization=ops ", " S:is_superuser=off ", " K:4 Z:I"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if got := dialRaw(t, s, "ops", pgproto3.ProtocolVersion32).until(1); !strings.HasSuffix(got, " K:32 Z:I") {
		t.Errorf("under protocol 3.2: %s", got)
	}
	if got := dialRaw(t, s, "eve", pgproto3.ProtocolVersion30).until(1); got != "AuthenticationOk FATAL:42501 end" {
		t.Errorf("a user of neither kind: %s", got)
	}
}

// exchange is what a client sends up to one ReadyForQuery, and the answer.
type exchange struct {
	send []pgproto3.FrontendMessage
	want string
}

func q(sql string) pgproto3.FrontendMessage { return &pgproto3.Query{String: sql} }

func parseOf(name, sql string) pgproto3.FrontendMessage {
	return &pgproto3.Parse{Name: name, Query: sql}
}

func bindOf(portal, name string, formats ...int16) pgproto3.FrontendMessage {
	return &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name, ResultFormatCodes: formats}
}

func TestProtocol(t *testing.T) {
	type list = []pgproto3.FrontendMessage
	sync, exec := &pgproto3.Sync{}, &pgproto3.Execute{}
	many := strings.TrimSpace(strings.Repeat("DataRow ", 14))
	for name, script := range map[string][]exchange{
		"simple": {
			{list{q("show state")}, "T:2 DataRow DataRow DataRow DataRow DataRow DataRow C:SHOW Z:I"},
			{list{q("")}, "EmptyQueryResponse Z:I"},
			{list{q("nonsense")}, "ERROR:42601 Z:I"},
			{list{q("SHOW HELP")}, "NoticeResponse C:SHOW Z:I"},
			{list{q("PAUSE nobody")}, "ERROR:3D000 Z:I"},
			{list{q("PAUSE pgbouncer")}, "ERROR:0A000 Z:I"},
			{list{q("RESUME")}, "ERROR:55000 Z:I"},
			{list{q("RESUME shop")}, "ERROR:55000 Z:I"},
			{list{q("SHUTDOWN soon")}, "ERROR:42601 Z:I"},
		},
		"settings": {
			{list{q("SET application_name = 'x'")}, "S:application_name=x C:SET Z:I"},
			{list{q("SET application_name TO x")}, "C:SET Z:I"},
			{list{q("SHOW application_name")}, "T:1 DataRow C:SHOW Z:I"},
			{list{q("RESET application_name")}, "S:application_name= C:RESET Z:I"},
			{list{q("SET client_encoding = 'UTF-8'")}, "C:SET Z:I"},
			{list{q("SET client_encoding = 'LATIN1'")}, "ERROR:22023 Z:I"},
			{list{q("SET standard_conforming_strings = off")}, "ERROR:0A000 Z:I"},
			{list{q("SET server_version = '1'")}, "ERROR:55P02 Z:I"},
			{list{q("SET pool_size = 3")}, "ERROR:0A000 Z:I"},
			{list{q("SET TIME ZONE 'UTC'")}, "S:TimeZone=UTC C:SET Z:I"},
			{list{q("DISCARD ALL")}, "S:TimeZone=Europe/Berlin C:DISCARD ALL Z:I"},
			{list{q("SET extra_float_digits = DEFAULT")}, "C:SET Z:I"},
			{list{q("SHOW TRANSACTION ISOLATION LEVEL")}, "T:1 DataRow C:SHOW Z:I"},
			{list{q("RESET nothing")}, "ERROR:42704 Z:I"},
		},
		"transaction": {
			{list{q("BEGIN")}, "C:BEGIN Z:T"},
			{list{q("SHOW VERSION")}, "T:1 DataRow C:SHOW Z:T"},
			{list{q("RELOAD")}, "ERROR:25001 Z:E"},
			{list{q("SHOW VERSION")}, "ERROR:25P02 Z:E"},
			{list{parseOf("", "SHOW VERSION"), sync}, "ERROR:25P02 Z:E"},
			{list{q("COMMIT")}, "C:ROLLBACK Z:I"},
			{list{q("START TRANSACTION READ ONLY")}, "C:BEGIN Z:T"},
			{list{q("ROLLBACK")}, "C:ROLLBACK Z:I"},
			{list{q("RELOAD")}, "C:RELOAD Z:I"},
		},
		"extended": {
			{list{parseOf("a", "SHOW LISTS"), &pgproto3.Describe{ObjectType: 'S', Name: "a"}, sync}, "ParseComplete t:0 T:2 Z:I"},
			{list{bindOf("", "a", 1), &pgproto3.Describe{ObjectType: 'P'}, exec, sync}, "BindComplete T:2 " + many + " C:SHOW Z:I"},
			{list{parseOf("a", "SHOW STATE"), sync}, "ERROR:42P05 Z:I"},
			{list{parseOf("", "RELOAD"), bindOf("", ""), &pgproto3.Describe{ObjectType: 'P'}, exec, exec, sync},
				"ParseComplete BindComplete NoData C:RELOAD ERROR:55000 Z:I"},
			{list{parseOf("", ""), bindOf("", ""), exec, sync}, "ParseComplete BindComplete EmptyQueryResponse Z:I"},
			{list{bindOf("", "none"), exec, q("ignored"), exec, sync}, "ERROR:26000 Z:I"},
			{list{&pgproto3.Execute{Portal: "none"}, sync}, "ERROR:34000 Z:I"},
			{list{&pgproto3.Describe{ObjectType: 'P', Name: "none"}, sync}, "ERROR:34000 Z:I"},
			{list{bindOf("", "a", 0, 1, 1), sync}, "ERROR:08P01 Z:I"},
			{list{bindOf("", "a", 2), sync}, "ERROR:22023 Z:I"},
			{list{&pgproto3.Bind{PreparedStatement: "a", Parameters: [][]byte{nil}}, sync}, "ERROR:08P01 Z:I"},
			{list{&pgproto3.Close{ObjectType: 'S', Name: "a"}, &pgproto3.Close{ObjectType: 'P', Name: "none"}, sync}, "CloseComplete CloseComplete Z:I"},
			{list{bindOf("", "a"), sync}, "ERROR:26000 Z:I"},
			{list{parseOf("b", "SHOW STATE"), sync}, "ParseComplete Z:I"},
			{list{q("DEALLOCATE b")}, "C:DEALLOCATE Z:I"},
			{list{q("DEALLOCATE b")}, "ERROR:26000 Z:I"},
			{list{q("DEALLOCATE ALL")}, "C:DEALLOCATE ALL Z:I"},
		},
		"suspended portal": {
			{list{q("BEGIN"), parseOf("", "SHOW LISTS"), bindOf("p", ""), &pgproto3.Execute{Portal: "p", MaxRows: 5}, sync}, "C:BEGIN Z:T"},
			{nil, "ParseComplete BindComplete DataRow DataRow DataRow DataRow DataRow PortalSuspended Z:T"},
			{list{bindOf("p", ""), sync}, "ERROR:42P03 Z:E"},
			{list{q("ROLLBACK")}, "C:ROLLBACK Z:I"},
			{list{parseOf("", "SHOW STATE"), bindOf("p", ""), &pgproto3.Execute{Portal: "p", MaxRows: 4}, &pgproto3.Execute{Portal: "p", MaxRows: 4},
				&pgproto3.Execute{Portal: "p"}, sync},
				"ParseComplete BindComplete DataRow DataRow DataRow DataRow PortalSuspended DataRow DataRow C:SHOW C:SHOW Z:I"},
			{list{&pgproto3.Execute{Portal: "p"}, sync}, "ERROR:34000 Z:I"},
		},
		"odd messages": {
			{list{&pgproto3.CopyData{Data: []byte("x")}, &pgproto3.CopyDone{}, &pgproto3.CopyFail{}, sync}, "Z:I"},
			{list{&pgproto3.FunctionCall{Function: 1}}, "ERROR:0A000 Z:I"},
			{list{&pgproto3.Close{ObjectType: 'x'}, sync}, "ERROR:08P01 Z:I"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := login(t, newSite(t), "admin")
			for i, x := range script {
				for _, m := range x.send {
					r.Send(m)
				}
				if got := r.until(1); got != x.want {
					t.Errorf("step %d: %s\nwant %s", i, got, x.want)
				}
			}
		})
	}
}

// TestBrokenMessages: each ends the session with FATAL 08P01 and nothing else.
func TestBrokenMessages(t *testing.T) {
	frame := func(kind byte, length uint32, body string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind}, length), body...)
	}
	for name, bytes := range map[string][]byte{
		"too long":         frame('Q', maxMessage+5, ""),
		"near 2^31":        frame('Q', 1<<31-1, ""),
		"negative":         frame('Q', 1<<32-1, ""),
		"too short":        frame('Q', 3, ""),
		"no terminator":    frame('Q', 8, "SHOW"),
		"unknown type":     frame('?', 4, ""),
		"broken bind":      frame('B', 8, "\x00\x00\xff\xff"),
		"broken parse":     frame('P', 6, "ab"),
		"describe of what": frame('D', 6, "Q\x00"),
		"password":         frame('p', 5, "\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			r := login(t, newSite(t), "ops")
			if _, err := r.conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if got := r.answers(1); got != "FATAL:08P01 end" {
				t.Error(got)
			}
		})
	}
}

// TestPipelineOfParses: a million tiny messages without Sync cost no memory to
// speak of, as the named ones are bounded and the others are replaced.
func TestPipelineOfParses(t *testing.T) {
	r := login(t, newSite(t), "ops")
	for i := range 3 * maxStatements {
		r.Send(parseOf(fmt.Sprintf("s%d", i), "SHOW STATE"))
	}
	r.Send(&pgproto3.Sync{})
	got := r.until(1)
	if n := strings.Count(got, "ParseComplete"); n != maxStatements || !strings.HasSuffix(got, " ERROR:53400 Z:I") {
		t.Errorf("%d statements, then %s", n, got[max(0, len(got)-40):])
	}
	r.Send(q("DEALLOCATE ALL"))
	r.Send(parseOf("", "SHOW STATE"))
	for i := range maxStatements + 1 {
		r.Send(bindOf(fmt.Sprintf("p%d", i), ""))
	}
	r.Send(&pgproto3.Sync{})
	if got := r.until(2); strings.Count(got, "BindComplete") != maxStatements || !strings.HasSuffix(got, " ERROR:53400 Z:I") {
		t.Errorf("portals: %s", got[max(0, len(got)-60):])
	}
}

// TestSessionLimit: the console refuses, and goes on when somebody has left.
func TestSessionLimit(t *testing.T) {
	s := newSite(t)
	var first *raw
	for range maxSessions {
		first = login(t, s, "ops")
	}
	if got := dialRaw(t, s, "ops", pgproto3.ProtocolVersion30).until(1); got != "AuthenticationOk FATAL:53300 end" {
		t.Errorf("one too many: %s", got)
	}
	first.Send(&pgproto3.Terminate{})
	if got := first.until(1); got != "end" {
		t.Error(got)
	}
	login(t, s, "ops") // the other end closes after the session has left
}

// TestLongAnswer: an answer larger than every buffer arrives whole, while the
// client's requests keep coming.
func TestLongAnswer(t *testing.T) {
	s := newSite(t)
	for i := range 5000 {
		s.world.clients = append(s.world.clients, Client{ID: uint64(100 + i), User: "app", Database: "shop", ApplicationName: strings.Repeat("n", 60)})
	}
	r := login(t, s, "ops")
	for range 3 {
		r.Send(q("SHOW CLIENTS"))
	}
	if got := r.until(3); strings.Count(got, "DataRow") != 3*5005 || strings.Count(got, "Z:I") != 3 {
		t.Errorf("%d rows", strings.Count(got, "DataRow"))
	}
}
