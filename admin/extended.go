package admin

import (
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/wire"
)

// prepared is one compiled text; command is nil when the text is empty.
type prepared struct {
	request request
	command *command
	chooser *chooser // nil: all rows
}

// portal is one bound statement.
type portal struct {
	*prepared
	formats []int16 // of the result's columns
	result  *result // nil until it is executed
	sent    int     // rows of it
}

// extended serves a message of the extended protocol.
func (s *session) extended(f frame) error {
	var e *wire.Error
	var err error
	switch f.kind {
	case wire.MsgParse:
		var m pgproto3.Parse
		if err = decode(&m, f); err == nil {
			e = s.parse(&m)
		}
	case wire.MsgBind:
		var m pgproto3.Bind
		if err = decode(&m, f); err == nil {
			e = s.bind(&m)
		}
	case wire.MsgDescribe:
		var m pgproto3.Describe
		if err = decode(&m, f); err == nil {
			e, err = s.describe(&m)
		}
	case wire.MsgExecute:
		var m pgproto3.Execute
		if err = decode(&m, f); err == nil {
			e, err = s.execute(&m)
		}
	case wire.MsgClose:
		var m pgproto3.Close
		if err = decode(&m, f); err == nil {
			e = s.close(&m)
		}
	default:
		err = wire.Fatal("08P01", "invalid frontend message type %d", f.kind)
	}
	if err != nil {
		return err
	}
	if e != nil {
		s.fail(e)
		s.skipping = true
		return s.flush()
	}
	return s.spill()
}

// sync ends a series of messages.
func (s *session) sync() error {
	s.skipping = false
	return s.ready()
}

func noStatement(name string) *wire.Error {
	return wire.Errorf("26000", "prepared statement %q does not exist", name)
}

func (s *session) parse(m *pgproto3.Parse) *wire.Error {
	if m.Name != "" && s.statements[m.Name] != nil {
		return wire.Errorf("42P05", "prepared statement %q already exists", m.Name)
	}
	if len(s.statements) >= maxStatements {
		return wire.Errorf("53400", "too many prepared statements").WithDetail("The limit is %d.", maxStatements)
	}
	delete(s.statements, m.Name) // the unnamed one is replaced, even in vain
	st, e := s.compile(m.Query)
	if e != nil {
		return e
	}
	if e := s.mayRun(st); e != nil {
		return e
	}
	s.statements[m.Name] = st
	s.out = wire.AppendEmpty(s.out, wire.MsgParseComplete)
	return nil
}

func (s *session) bind(m *pgproto3.Bind) *wire.Error {
	st := s.statements[m.PreparedStatement]
	if st == nil {
		return noStatement(m.PreparedStatement)
	}
	if n := len(m.Parameters); n > 0 {
		return wire.Errorf("08P01", "bind message supplies %d parameters, but prepared statement %q requires 0", n, m.PreparedStatement)
	}
	columns := 0
	if st.command != nil {
		columns = len(st.command.columns)
	}
	if n := len(m.ResultFormatCodes); n > 1 && n != columns {
		return wire.Errorf("08P01", "bind message has %d result formats but query has %d columns", n, columns)
	}
	for _, f := range m.ResultFormatCodes {
		if f != pgproto3.TextFormat && f != pgproto3.BinaryFormat {
			return wire.Errorf("22023", "unsupported format code: %d", f)
		}
	}
	if m.DestinationPortal != "" && s.portals[m.DestinationPortal] != nil {
		return wire.Errorf("42P03", "cursor %q already exists", m.DestinationPortal)
	}
	if len(s.portals) >= maxStatements {
		return wire.Errorf("53400", "too many portals").WithDetail("The limit is %d.", maxStatements)
	}
	s.portals[m.DestinationPortal] = &portal{prepared: st, formats: m.ResultFormatCodes}
	s.out = wire.AppendEmpty(s.out, wire.MsgBindComplete)
	return nil
}

func (s *session) describe(m *pgproto3.Describe) (*wire.Error, error) {
	var st *prepared
	var formats []int16
	switch m.ObjectType {
	case 'S':
		if st = s.statements[m.Name]; st == nil {
			return noStatement(m.Name), nil
		}
		if err := s.send(&pgproto3.ParameterDescription{}); err != nil {
			return nil, err
		}
	case 'P':
		p := s.portals[m.Name]
		if p == nil {
			return noPortal(m.Name), nil
		}
		st, formats = p.prepared, p.formats
	default:
		return nil, wire.Fatal("08P01", "invalid DESCRIBE message subtype %d", m.ObjectType)
	}
	if st.command == nil || st.command.columns == nil {
		s.out = wire.AppendEmpty(s.out, wire.MsgNoData)
		return nil, nil
	}
	return nil, s.send(&pgproto3.RowDescription{Fields: fields(st.command.columns, formats)})
}

func noPortal(name string) *wire.Error {
	return wire.Errorf("34000", "portal %q does not exist", name)
}

func (s *session) execute(m *pgproto3.Execute) (*wire.Error, error) {
	p := s.portals[m.Portal]
	if p == nil {
		return noPortal(m.Portal), nil
	}
	if p.command == nil {
		s.out = wire.AppendEmpty(s.out, wire.MsgEmptyQueryResponse)
		return nil, nil
	}
	switch {
	case p.result == nil:
		// What was pipelined before has to be on its way while a command waits.
		if err := s.flush(); err != nil {
			return nil, err
		}
		res, e := s.run(p.prepared)
		if e != nil {
			return e, nil
		}
		p.result = &res
	case p.command.columns == nil:
		return wire.Errorf("55000", "portal %q cannot be run", m.Portal), nil
	}
	return nil, s.sendRows(p, int(m.MaxRows))
}

// sendRows sends up to limit rows of the portal, all when it is 0.
func (s *session) sendRows(p *portal, limit int) error {
	rows := p.result.rows[p.sent:]
	suspended := limit > 0 && len(rows) >= limit
	if suspended {
		rows = rows[:limit]
	}
	for _, row := range rows {
		if err := s.send(&pgproto3.DataRow{Values: encodeRow(p.command.columns, row, p.formats)}); err != nil {
			return err
		}
	}
	p.sent += len(rows)
	if suspended {
		s.out = wire.AppendEmpty(s.out, wire.MsgPortalSuspended)
		return nil
	}
	s.complete(*p.result)
	return nil
}

func (s *session) close(m *pgproto3.Close) *wire.Error {
	switch m.ObjectType {
	case 'S':
		delete(s.statements, m.Name)
	case 'P':
		delete(s.portals, m.Name)
	default:
		return wire.Errorf("08P01", "invalid CLOSE message subtype %d", m.ObjectType)
	}
	s.out = wire.AppendEmpty(s.out, wire.MsgCloseComplete)
	return nil
}
