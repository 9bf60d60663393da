package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/wire"
)

// FuzzError: whatever a server's error holds, what a client is told of it is one
// message with a severity and a code of five characters, and the rest unchanged.
func FuzzError(f *testing.F) {
	f.Add("ERROR", "42601", "syntax error at or near \"SELEC\"", "", "")
	f.Add("FATAL", "57P01", "terminating connection", "detail", "hint")
	f.Add("", "", "", "", "")
	f.Add("PANIC", "1234567", "größe", "\xff", "'")
	f.Fuzz(func(t *testing.T, severity, code, message, detail, hint string) {
		if strings.ContainsRune(severity+code+message+detail+hint, 0) {
			return // ends a field
		}
		e := &wire.Error{Severity: severity, Code: code, Message: message, Detail: detail, Hint: hint}
		in := bytes.NewReader(e.Append(nil))
		kind, body, err := wire.ReadMessage(in, 1<<30)
		var got pgproto3.ErrorResponse
		if err != nil || kind != 'E' || in.Len() > 0 || got.Decode(body) != nil {
			t.Fatalf("%q, %v", body, err)
		}
		if got.Severity == "" || got.Severity != got.SeverityUnlocalized || len(got.Code) != 5 || len(code) == 5 && got.Code != code {
			t.Errorf("%+v", got)
		}
		if got.Message != message || got.Detail != detail || got.Hint != hint || (severity != "" && got.Severity != severity) {
			t.Errorf("%+v of %+v", got, e)
		}
	})
}
