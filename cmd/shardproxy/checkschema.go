package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"shardproxy/verify"
)

// schemaReport is what check --schema --json prints.
type schemaReport struct {
	Database string           `json:"database"`
	Base     string           `json:"compared_with"`
	Shards   []checkedShard   `json:"shards"`
	Findings []verify.Finding `json:"findings"`
	Error    string           `json:"error,omitempty"`
}

// checkSchema compares the shards' schemas.
func (f *checkFlags) checkSchema(ctx context.Context, cmd *cobra.Command, c *checked) error {
	found, err := verify.Schema(ctx, c.conf, c.sessions, c.hasHome())
	r := schemaReport{Database: c.conf.Name, Base: c.sessions[0].Shard, Shards: c.shards, Findings: found}
	if err != nil {
		r.Error = verify.Told(err)
	}
	differs := false
	for i := range found {
		differs = differs || found[i].Severity != verify.Note
	}
	if f.json {
		err = printJSON(cmd.OutOrStdout(), &r)
	} else {
		_, err = io.WriteString(cmd.OutOrStdout(), r.text())
	}
	if err != nil {
		return err
	}
	return c.code(differs, r.Error != "")
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// text is the report in words, what the rules say first, then shard by shard.
func (r *schemaReport) text() string {
	var b strings.Builder
	section := func(title string, want func(*verify.Finding) bool) (n int) {
		for i := range r.Findings {
			x := &r.Findings[i]
			if !want(x) {
				continue
			}
			if n == 0 {
				b.WriteString(title + "\n")
			}
			n++
			fmt.Fprintf(&b, "  %s\n", x.Message)
			if x.Mend != "" {
				fmt.Fprintf(&b, "    on %s: %s;\n", x.MendOn, strings.ReplaceAll(x.Mend, "\n", "\n      "))
			}
		}
		return n
	}
	total := section("rules and home shard:", func(x *verify.Finding) bool { return x.Shard == "" && x.Severity != verify.Note })
	for _, s := range r.Shards {
		switch {
		case s.Error != "":
			fmt.Fprintf(&b, "shard %s: not compared: %s\n", s.Shard, s.Error)
		case s.Shard == r.Base:
		default:
			n := section("shard "+s.Shard+", compared with "+r.Base+":", func(x *verify.Finding) bool { return x.Shard == s.Shard && x.Severity != verify.Note })
			if total += n; n == 0 && r.Error == "" {
				fmt.Fprintf(&b, "shard %s: like %s\n", s.Shard, r.Base)
			}
		}
	}
	section("notes:", func(x *verify.Finding) bool { return x.Severity == verify.Note })
	if r.Error != "" {
		fmt.Fprintf(&b, "the comparison ended early: %s\n", r.Error)
	}
	fmt.Fprintf(&b, "database %s: %d differences and faults\n", r.Database, total)
	return b.String()
}
