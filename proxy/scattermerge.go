package proxy

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"shardproxy/exec"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// merge gives the client the rows of all shards as they come, in their order.
func (c *scattering) merge() {
	m := c.way.Merge
	limit, offset, ok := c.bounds(m)
	if !ok || !c.ownsViews() {
		return
	}
	if c.moment(); c.err != nil {
		return
	}
	part, ok := c.part(mergedText(m, limit, offset))
	if !ok || !c.paramsKnown(len(part.Types)) {
		return
	}
	o := exec.MergeOptions{Hidden: len(m.Keys), Offset: offset, Limit: limit}
	var columns []byte
	if len(m.Keys) > 0 || c.values.Moment != "" {
		d := c.describeMerged(part)
		if c.err != nil {
			return
		}
		c.expected = d.columns
		all := d.columns
		visible := len(all) - len(m.Keys)
		for i, k := range m.Keys {
			o.Keys = append(o.Keys, exec.Order{Type: all[visible+i].typ, Descending: k.Descending, NullsFirst: k.NullsFirst, Bytewise: k.Bytewise})
			if !o.Keys[i].Comparable() {
				c.otherwise(router.ScatterOptions{NoMerge: true, NoGroups: c.options.NoGroups})
				return
			}
		}
		if !c.formatsFit(visible) {
			return
		}
		columns = columnsFor(d.body, visible, c.asks.formats)
		part.Bind = appendFormats(part.Bind, c.asks.formats, visible, len(m.Keys))
	} else {
		part.Bind = append(part.Bind, c.asks.formats...)
	}
	if c.values.Moment != "" && !c.named(&columns) {
		return
	}
	if c.opening != nil {
		c.openMerge(&part, o, columns)
		return
	}
	if m.Claims && limit >= 0 {
		c.mergeClaimed(&part, o, columns)
		return
	}
	frames := partFrames(&part, true, describePortal())
	sources := c.start(func(shard *scatterShard) []byte {
		if !slices.Contains(c.merging, shard.index) {
			return nil
		}
		return frames
	}, executeClose())
	if c.err != nil {
		return
	}
	if c.stream(sources, o, columns); c.stale {
		c.afresh(c.merge)
	}
}

// asTold checks that the columns of the answer are those that the client was told; body is that of
// a RowDescription.
func (c *scattering) asTold(body []byte) bool {
	if c.promised == nil || *c.promised == string(appendColumns(nil, body)) {
		return true
	}
	c.fail(errShape(), nil, -1)
	return false
}

// formatsFit checks the number of result formats.
func (c *scattering) formatsFit(columns int) bool {
	n := int(binary.BigEndian.Uint16(c.asks.formats))
	if n > 1 && n != columns {
		c.fail(wire.Errorf("08P01", "bind message has %d result formats but query has %d columns", n, columns), nil, -1)
		return false
	}
	return true
}

// describeMerged describes the text that is merged, which may be known.
func (c *scattering) describeMerged(part router.Part) (d description) {
	key := c.knownKey()
	if known := c.s.db.known.get(key); known != nil && !c.asked {
		c.cached = true
		return known.inputs[0]
	}
	all := c.describe(part)
	if c.err != nil {
		return d
	}
	c.knows(key, &scatterKnown{inputs: all})
	return all[0]
}

// afresh runs the query once more, and asks what is no longer known to be so. No row has been given
// to the client.
func (c *scattering) afresh(run func()) {
	c.s.db.known.put(c.knownKey(), nil)
	c.stale, c.asked, c.expected = false, true, nil
	if c.into != nil {
		c.into.drop()
	}
	run()
}

// agrees compares the columns of a shard with those that are expected; the first that come are,
// when none are known.
func (c *scattering) agrees(description []byte) bool {
	have := readColumns(description)
	if c.expected == nil {
		c.expected = have
	}
	if c.alikeTypes(have) || c.into != nil && c.into.likeTypes(have, c.expected) {
		return true
	}
	if c.cached && !c.sentHead {
		c.stale = true
		return false
	}
	c.fail(wire.Errorf("55000", "the shards give columns of different types").
		WithHint("Their definitions differ: see shardproxy check --schema."), nil, -1)
	return false
}

// alikeTypes reports whether columns have the types that are expected. Those that users make have numbers
// of each server's own: it does not count where values are texts, or are read by the type's name.
func (c *scattering) alikeTypes(have []rowColumn) bool {
	if len(have) != len(c.expected) {
		return false
	}
	for j := range have {
		own := have[j].typ >= firstOwnOID && c.expected[j].typ >= firstOwnOID
		if have[j].typ != c.expected[j].typ && !(own && (c.gathering || c.asks.isText(j))) {
			return false
		}
	}
	return true
}

// isText reports whether the client wants a column as text.
func (a *clientAsks) isText(column int) bool {
	formats := a.formats
	if len(formats) < 2 {
		return false
	}
	n := int(binary.BigEndian.Uint16(formats))
	switch formats = formats[2:]; {
	case n == 0:
		return true
	case n == 1:
		column = 0
	}
	return column < n && len(formats) >= 2*n && binary.BigEndian.Uint16(formats[2*column:]) == 0
}

// paramsKnown has a server look at a statement that does not use all parameters of Bind, of
// which the shards get what they need: it may not know of what type the others are.
func (c *scattering) paramsKnown(used int) bool {
	return used >= c.values.Count() || c.describeClient()
}

// named puts the names that the client's own text gives to its columns into a RowDescription:
// a time that was written into the text has another.
func (c *scattering) named(columns *[]byte) bool {
	moment := c.values.Moment
	c.values.Moment = ""
	part, ok := c.part(c.text)
	c.values.Moment = moment
	if !ok {
		return false
	}
	d := c.describe(part)
	if c.err != nil {
		return false
	}
	*columns = columnsFor(d[0].body, len(d[0].columns), c.asks.formats)
	return true
}

// stream gives the client what the sources give. columns is the body of its RowDescription, nil
// for that of the first source.
func (c *scattering) stream(sources []exec.Source, o exec.MergeOptions, columns []byte) {
	begin := func() {
		if columns == nil {
			columns = []byte{0, 0} // of no columns: the server said NoData
		}
		c.s.client.SetOutput(c.head(c.s.client.Output(), columns))
	}
	agree := true
	var records *recordCheck
	looked := false
	rows, err := exec.Merge(c.lacking(sources), o, func(frames []byte) error {
		if !agree {
			return errStale
		}
		if !looked && len(sources) > 1 && c.into == nil {
			looked, records = true, checksRecords(c.expected[:len(c.expected)-o.Hidden], c.asks.formats)
		}
		if e := records.frames(frames); e != nil {
			return e
		}
		if !c.sentHead {
			begin()
		}
		return c.send(frames)
	}, func(_ int, frame []byte) {
		if frame[0] != wire.MsgRowDescription || !agree {
			return
		}
		if agree = c.agrees(frame[5:]); agree && columns == nil {
			columns = append([]byte(nil), frame[5:]...)
		}
		agree = agree && (c.sentHead || c.asTold(columns))
	})
	c.rows = rows
	switch {
	case !agree:
		c.endStreams(nil)
	case err != nil:
		c.endStreams(err)
	case !c.sentHead:
		begin()
	}
	if agree && err == nil && c.hasEnough(&o, rows) {
		c.enough()
	}
}

// otherwise finds another way, on the same shards.
func (c *scattering) otherwise(o router.ScatterOptions) {
	o.Unlike = c.options.Unlike
	c.options = o
	before := c.shards
	err := c.plan(c.s.db.Owners())
	have := c.shards
	c.shards = before
	if err != nil {
		c.fail(wire.AsError(err), nil, -1)
		return
	}
	for _, shard := range have {
		found := false
		for _, b := range before {
			found = found || b.index == shard.index
		}
		if !found {
			c.fail(wire.Errorf("0A000", "this statement needs other shards than it seemed to"), nil, -1)
			return
		}
	}
	if c.way.Merge != nil {
		c.merge()
	} else {
		c.gather()
	}
}

// mergedText is what each shard gets of a merge: as many rows as the client may need of it.
func mergedText(m *router.Merge, limit, offset int64) string {
	if limit < 0 {
		return m.Before + m.After
	}
	return m.Before + " LIMIT " + strconv.FormatInt(limit+offset, 10) + m.After
}

// bounds returns the LIMIT, -1 for none, and the OFFSET; not ok when one is an error, which
// is noted.
func (c *scattering) bounds(m *router.Merge) (limit, offset int64, ok bool) {
	limit, ok = c.bound(m.Limit, -1)
	if !ok {
		return 0, 0, false
	}
	if m.Limit.Set && limit < 0 && limit != math.MinInt64 {
		c.fail(wire.Errorf("2201W", "LIMIT must not be negative"), nil, -1)
		return 0, 0, false
	}
	if limit == math.MinInt64 {
		limit = -1
	}
	offset, ok = c.bound(m.Offset, 0)
	switch {
	case !ok:
		return 0, 0, false
	case offset == math.MinInt64:
		offset = 0
	case offset < 0:
		c.fail(wire.Errorf("2201X", "OFFSET must not be negative"), nil, -1)
		return 0, 0, false
	}
	if limit > math.MaxInt64-offset {
		limit = math.MaxInt64 - offset
	}
	return limit, offset, true
}

// bound returns the number that a LIMIT or OFFSET gives; the least one stands for NULL.
func (c *scattering) bound(b router.Bound, none int64) (int64, bool) {
	switch {
	case !b.Set:
		return none, true
	case b.Param == 0:
		return b.Value, true
	}
	data, binaryFormat, ok := c.values.Param(b.Param)
	var n int64
	var err error
	switch {
	case !ok:
		ok = false
	case data == nil:
		n = math.MinInt64
	case !binaryFormat:
		n, err = strconv.ParseInt(string(bytes.Trim(data, " \t\n")), 10, 64)
	case len(data) == 8:
		n = int64(binary.BigEndian.Uint64(data))
	case len(data) == 4 && c.values.DeclaredType(b.Param) == shardmap.Int4.OID():
		n = int64(int32(binary.BigEndian.Uint32(data)))
	case len(data) == 2 && c.values.DeclaredType(b.Param) == shardmap.Int2.OID():
		n = int64(int16(binary.BigEndian.Uint16(data)))
	default:
		ok = false
	}
	if err != nil || !ok {
		c.fail(wire.Errorf("22P02", "the value of parameter $%d, a LIMIT or OFFSET, is no number", b.Param), nil, -1)
		return 0, false
	}
	return n, true
}
