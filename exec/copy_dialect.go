package exec

import (
	"slices"
	"strconv"
	"strings"

	"shardproxy/query"
)

// CopyFormat is the format of COPY data.
type CopyFormat uint8

// The formats.
const (
	CopyText CopyFormat = iota
	CopyCSV
	CopyBinary
)

// CopyHeader says what the first line is.
type CopyHeader uint8

// The kinds of headers: none, one that is skipped, one that names the columns.
const (
	CopyHeaderNone CopyHeader = iota
	CopyHeaderSkip
	CopyHeaderMatch
)

// CopyDialect says how the data of a COPY FROM are to be read. It is immutable.
type CopyDialect struct {
	Format                   CopyFormat
	Delimiter, Quote, Escape byte // Quote and Escape in CSV only
	// Null is what stands for NULL, before unescaping.
	Null string
	// Default, when HasDefault is set, stands for a column's default (PostgreSQL 16).
	Default    string
	HasDefault bool
	Header     CopyHeader
	// ForceNull and ForceNotNull name columns; the All flags stand for every one.
	ForceNull, ForceNotNull       []string
	ForceNullAll, ForceNotNullAll bool
	// Encoding is that of the data, in lower case without punctuation ("utf8").
	Encoding string
	// Converted is set when the server converts the data: Encoding is not its own.
	Converted bool
	// Printable is set when the data are in the encoding that the client reads
	// messages in, so that a line may be quoted in one.
	Printable bool
	// Version is the servers' major version, 0 when it is not known or not the same
	// on all shards. Where versions differ the reader then refuses.
	Version int
}

// CopySession is what the reading of a COPY depends on besides its text.
type CopySession struct {
	// ClientEncoding and ServerEncoding are the settings client_encoding and
	// server_encoding, in any spelling that PostgreSQL accepts.
	ClientEncoding, ServerEncoding string
	// Version is the servers' major version; see CopyDialect.Version.
	Version int
}

// CopyRefusal says why a COPY cannot be split.
type CopyRefusal struct {
	// Reason is a sentence's end: "an option that is not known: x".
	Reason string
	// Invalid is set when PostgreSQL refuses the statement itself, and says so
	// better. It is then to be sent unchanged to one shard; should that accept
	// it after all, it gets CopyFail and the client the Reason.
	Invalid bool
}

// Error returns the reason.
func (r *CopyRefusal) Error() string { return "COPY cannot be split: " + r.Reason }

func refusal(reason string) *CopyRefusal { return &CopyRefusal{Reason: reason} }

func invalid(reason string) *CopyRefusal { return &CopyRefusal{Reason: reason, Invalid: true} }

// ReadCopyDialect reads the options of a COPY FROM STDIN. c must have been made
// from the very text that is run: a plan's shape holds another text's values. The error is a
// *CopyRefusal.
func ReadCopyDialect(c *query.Copy, s CopySession) (*CopyDialect, error) {
	if !c.From || c.File || c.Table == nil {
		return nil, refusal("it does not read the client's stream")
	}
	o := copyOptions{given: map[string]bool{}}
	for _, option := range c.Options {
		if err := o.take(option); err != nil {
			return nil, err
		}
	}
	d := &o.dialect
	if err := o.defaults(); err != nil {
		return nil, err
	}
	d.Version = s.Version
	if err := o.encodings(s); err != nil {
		return nil, err
	}
	return d, nil
}

// copyOptions collects options as ProcessCopyOptions of PostgreSQL does.
type copyOptions struct {
	dialect                        CopyDialect
	given                          map[string]bool
	delimiter, quote, escape, null string
	encoding                       string
}

func (o *copyOptions) take(c query.CopyOption) *CopyRefusal {
	if o.given[c.Name] {
		return invalid("the option " + c.Name + " is given twice")
	}
	o.given[c.Name] = true
	switch c.Name {
	case "format":
		return o.format(c)
	case "header":
		return o.header(c)
	case "freeze":
		return nil // the server's business
	case "log_verbosity":
		return nil // says how rows are told that ON_ERROR ignore left out
	case "on_error":
		if !strings.EqualFold(c.Value, "stop") {
			return refusal("ON_ERROR other than stop: each shard would count and report by itself")
		}
		return nil
	case "delimiter":
		return o.text(c, &o.delimiter)
	case "quote":
		return o.text(c, &o.quote)
	case "escape":
		return o.text(c, &o.escape)
	case "null":
		return o.text(c, &o.null)
	case "default":
		o.dialect.HasDefault = true
		return o.text(c, &o.dialect.Default)
	case "encoding":
		return o.text(c, &o.encoding)
	case "force_null":
		return columnList(c, &o.dialect.ForceNull, &o.dialect.ForceNullAll)
	case "force_not_null":
		return columnList(c, &o.dialect.ForceNotNull, &o.dialect.ForceNotNullAll)
	case "force_quote":
		return invalid("FORCE_QUOTE is for COPY TO")
	case "reject_limit":
		return invalid("REJECT_LIMIT needs ON_ERROR ignore")
	}
	return invalid("an option that is not known: " + c.Name)
}

func (o *copyOptions) text(c query.CopyOption, to *string) *CopyRefusal {
	if !c.HasValue || c.Star || c.List != nil {
		return invalid("the option " + c.Name + " has no plain value")
	}
	*to = c.Value
	return nil
}

func columnList(c query.CopyOption, to *[]string, all *bool) *CopyRefusal {
	if !c.Star && len(c.List) == 0 {
		return invalid("the option " + c.Name + " has no list of columns")
	}
	*to, *all = c.List, c.Star
	return nil
}

func (o *copyOptions) format(c query.CopyOption) *CopyRefusal {
	switch c.Value {
	case "text":
		o.dialect.Format = CopyText
	case "csv":
		o.dialect.Format = CopyCSV
	case "binary":
		o.dialect.Format = CopyBinary
	default:
		return invalid("no such format: " + c.Value)
	}
	return nil
}

func (o *copyOptions) header(c query.CopyOption) *CopyRefusal {
	value := strings.ToLower(c.Value)
	switch {
	case !c.HasValue, value == "true", value == "on", value == "1":
		o.dialect.Header = CopyHeaderSkip
	case value == "false", value == "off", value == "0":
		o.dialect.Header = CopyHeaderNone
	case value == "match":
		o.dialect.Header = CopyHeaderMatch
	default:
		return invalid("HEADER has no such value: " + c.Value)
	}
	return nil
}

// defaults sets what was left out and looks for what PostgreSQL does not allow
// together, as far as the reader relies on it.
func (o *copyOptions) defaults() *CopyRefusal {
	d := &o.dialect
	if d.Format == CopyBinary {
		for _, name := range []string{"delimiter", "null", "default", "quote", "escape", "force_null", "force_not_null"} {
			if o.given[name] {
				return invalid("the binary format has no option " + name)
			}
		}
		if d.Header != CopyHeaderNone {
			return invalid("the binary format has no header")
		}
		return nil
	}
	csv := d.Format == CopyCSV
	if !csv && (o.given["quote"] || o.given["escape"] || o.given["force_null"] || o.given["force_not_null"]) {
		return invalid("an option that only CSV has")
	}
	d.Null = choose(o.given["null"], o.null, choose(csv, "", `\N`))
	var err *CopyRefusal
	one := func(name, value, fallback string) byte {
		value = choose(o.given[name], value, fallback)
		switch {
		case err != nil:
		case len(value) != 1:
			err = invalid("the " + name + " must be one byte")
		case value[0] >= 0x80 || value[0] == 0:
			err = refusal("the " + name + " is no ASCII character")
		case value == "\r" || value == "\n":
			err = refusal("the " + name + " is a line end")
		}
		return (value + "\x00")[0]
	}
	d.Delimiter = one("delimiter", o.delimiter, choose(csv, ",", "\t"))
	if csv {
		d.Quote = one("quote", o.quote, `"`)
		d.Escape = one("escape", o.escape, string(d.Quote))
	}
	if err != nil {
		return err
	}
	return o.compatible()
}

func (o *copyOptions) compatible() *CopyRefusal {
	d := &o.dialect
	csv := d.Format == CopyCSV
	if !csv && strings.IndexByte(`\.abcdefghijklmnopqrstuvwxyz0123456789`, d.Delimiter) >= 0 {
		return invalid("a delimiter that text cannot have")
	}
	if csv && d.Delimiter == d.Quote {
		return invalid("delimiter and quote are the same")
	}
	for _, marker := range []string{d.Null, d.Default} {
		if strings.ContainsAny(marker, "\r\n\x00") || strings.IndexByte(marker, d.Delimiter) >= 0 ||
			csv && strings.IndexByte(marker, d.Quote) >= 0 {
			return invalid("a marker with a line end, a delimiter or a quote in it")
		}
	}
	if d.HasDefault && d.Default == d.Null {
		return invalid("NULL and DEFAULT are the same")
	}
	return nil
}

// encodings decides which encoding the data have, and whether rows can be cut in it.
func (o *copyOptions) encodings(s CopySession) *CopyRefusal {
	d := &o.dialect
	client, server := encodingName(s.ClientEncoding), encodingName(s.ServerEncoding)
	d.Encoding = client
	if o.given["encoding"] {
		d.Encoding = encodingName(o.encoding)
	}
	d.Converted = d.Encoding != server
	d.Printable = d.Encoding == client
	if d.Format == CopyBinary {
		return nil
	}
	for _, name := range []string{client, server, d.Encoding} {
		switch kind := encodings()[name]; {
		case kind == encodingUnknown:
			return invalid("an encoding that is not known: " + name)
		case kind == encodingMixed:
			return refusal("in the encoding " + name + " an ASCII byte may be part of another character")
		}
	}
	if (d.Converted || !d.Printable) && !ascii(d.Null+d.Default+strings.Join(slices.Concat(d.ForceNull, d.ForceNotNull), "")) {
		return refusal("an option that is not ASCII, and data in another encoding")
	}
	return nil
}

func choose(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// String names the dialect for logs: "csv delimiter=',' header".
func (d *CopyDialect) String() string {
	var b strings.Builder
	b.WriteString([]string{"text", "csv", "binary"}[d.Format])
	if d.Format == CopyBinary {
		return b.String()
	}
	b.WriteString(" delimiter=" + strconv.QuoteRune(rune(d.Delimiter)) + " null=" + strconv.Quote(d.Null))
	if d.Format == CopyCSV {
		b.WriteString(" quote=" + strconv.QuoteRune(rune(d.Quote)) + " escape=" + strconv.QuoteRune(rune(d.Escape)))
	}
	if d.HasDefault {
		b.WriteString(" default=" + strconv.Quote(d.Default))
	}
	b.WriteString([]string{"", " header", " header=match"}[d.Header])
	return b.String() + " encoding=" + d.Encoding
}
