import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

/** The sections that stream, wait or share. */
class JdbcStreams {
  static void copy() throws Exception {
    try (Connection c = Transcript.connect()) {
      Transcript.exec(c, "CREATE TABLE cp (id int, v text)");
      CopyManager m = c.unwrap(PGConnection.class).getCopyAPI();
      StringBuilder text = new StringBuilder();
      for (int i = 0; i < 5000; i++) {
        text.append(i).append("\tv").append(i).append('\n');
      }
      Transcript.say(m.copyIn("COPY cp FROM STDIN", new StringReader(text.toString())));
      Transcript.say(m.copyIn("COPY cp FROM STDIN (FORMAT csv)", new StringReader("9000,\"a\nb\"\n")));
      for (String format : new String[] {"text", "csv, HEADER", "binary"}) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        Transcript.say(m.copyOut("COPY (SELECT * FROM cp ORDER BY id) TO STDOUT (FORMAT " + format + ")", out), out.size(), Transcript.md5(out.toByteArray()));
      }
      Transcript.refused("bad row", () -> m.copyIn("COPY cp FROM STDIN", new StringReader("x\ty\n")));
      Transcript.refused("no table", () -> m.copyIn("COPY missing FROM STDIN", new StringReader("x")));
      Transcript.refused("out", () -> m.copyOut("COPY (SELECT 1 / (5000 - i) FROM generate_series(1, 6000) i) TO STDOUT", new ByteArrayOutputStream()));
      CopyIn in = m.copyIn("COPY cp FROM STDIN");
      byte[] row = "1\tgiven up\n".getBytes(StandardCharsets.UTF_8);
      in.writeToCopy(row, 0, row.length);
      in.cancelCopy();
      c.setAutoCommit(false);
      m.copyIn("COPY cp FROM STDIN", new ByteArrayInputStream(row));
      c.rollback();
      Transcript.say(Transcript.rows(c, "SELECT count(*), sum(id) FROM cp"));
      c.commit();
    }
  }

  static void cancel() throws Exception {
    try (Connection c = Transcript.connect(); Statement s = c.createStatement()) {
      for (boolean auto : new boolean[] {true, false}) {
        c.setAutoCommit(auto);
        String mark = "cancel me " + auto;
        Thread canceller = new Thread(() -> {
          try {
            Transcript.waitRunning(mark);
            s.cancel();
          } catch (Exception e) {
            Transcript.say("FAIL:", e);
          }
        });
        canceller.start();
        Transcript.refused("cancelled", () -> s.execute("SELECT pg_sleep(20) /* " + mark + " */"));
        canceller.join();
        if (!auto) {
          c.rollback();
        }
        Transcript.say(Transcript.rows(c, "SELECT 1"));
      }
      c.rollback();
    }
  }

  static void listen() throws Exception {
    try (Connection listener = Transcript.connect(); Connection sender = Transcript.connect()) {
      PGConnection pg = listener.unwrap(PGConnection.class);
      List<String> got = new ArrayList<>();
      Transcript.exec(listener, "LISTEN news");
      Transcript.exec(listener, "LISTEN \"Odd Channel\"");
      String[][] steps = {
        {"NOTIFY news, 'one'"}, {"BEGIN", "SELECT pg_notify('Odd Channel', 'two')", "COMMIT"}, {"BEGIN", "NOTIFY news, 'never'", "ROLLBACK", "NOTIFY news, 'three'"},
      };
      for (String[] step : steps) {
        for (String sql : step) {
          Transcript.exec(sender, sql);
        }
        for (int before = got.size(); got.size() == before;) {
          for (PGNotification n : pg.getNotifications(0)) {
            got.add(n.getName() + " " + n.getParameter());
          }
        }
      }
      Transcript.say(Transcript.rows(listener, "SELECT 1"));
      Transcript.exec(listener, "UNLISTEN news");
      Transcript.exec(sender, "NOTIFY news, 'unheard'");
      Transcript.exec(sender, "NOTIFY \"Odd Channel\", 'last'");
      for (int before = got.size(); got.size() == before;) {
        for (PGNotification n : pg.getNotifications(0)) {
          got.add(n.getName() + " " + n.getParameter());
        }
      }
      Transcript.say(got);
    }
  }

  static void churn() throws Exception {
    try (Connection c = Transcript.connect()) {
      Transcript.exec(c, "CREATE TABLE ch (a int)");
      List<String> failures = Collections.synchronizedList(new ArrayList<>());
      List<Thread> threads = new ArrayList<>();
      for (int who = 0; who < 12; who++) {
        int mine = who;
        Thread t = new Thread(() -> {
          for (int i = 0; i < 10; i++) {
            try (Connection one = Transcript.connect()) {
              one.setAutoCommit(false);
              Transcript.exec(one, "INSERT INTO ch VALUES (" + mine + ")");
              if (i % 2 == 0) {
                one.commit();
              } else {
                one.abort(Runnable::run); // without a word, in a transaction
              }
            } catch (Exception e) {
              failures.add(e.toString());
            }
          }
        });
        threads.add(t);
        t.start();
      }
      for (Thread t : threads) {
        t.join();
      }
      c.setAutoCommit(false);
      Transcript.say("failures", failures, Transcript.rows(c, "SELECT count(*), sum(a) FROM ch"));
      c.rollback();
    }
  }

  static void fetchSize() throws Exception {
    try (Connection c = Transcript.connect("prepareThreshold=2"); Connection other = Transcript.connect()) {
      c.setAutoCommit(false); // only then the driver suspends portals
      try (PreparedStatement p = c.prepareStatement("SELECT i, repeat('x', 100) FROM generate_series(1, ?) i")) {
        for (int size : new int[] {1, 7, 100, 5000}) {
          p.setFetchSize(size);
          p.setInt(1, 1000);
          long sum = 0;
          try (ResultSet r = p.executeQuery(); Statement between = c.createStatement()) {
            while (r.next()) {
              sum += r.getInt(1);
              if (r.getInt(1) % 250 == 0) { // another statement while the portal is open
                try (ResultSet x = between.executeQuery("SELECT " + r.getInt(1))) {
                  x.next();
                  sum += x.getInt(1);
                }
                Transcript.rows(other, "SELECT 1");
              }
            }
          }
          c.commit();
          Transcript.say(size, sum);
        }
        p.setFetchSize(10);
        ResultSet left = p.executeQuery();
        left.next();
        left.close(); // in the middle
        p.setMaxRows(25);
        try (ResultSet r = p.executeQuery()) {
          Transcript.say(Transcript.rows(r).size());
        }
        // What is open when the transaction ends cannot be read on.
        p.setMaxRows(0);
        ResultSet open = p.executeQuery();
        open.next();
        c.commit();
        Transcript.refused("after COMMIT", () -> {
          while (open.next()) {
            continue;
          }
          return "all";
        });
        c.rollback();
      }
      try (Statement s = c.createStatement()) {
        s.setFetchSize(10);
        Transcript.refused("in the middle", () -> Transcript.rows(s.executeQuery("SELECT 1 / (500 - i) FROM generate_series(1, 1000) i")));
      }
      c.rollback();
      Transcript.say(Transcript.rows(c, "SELECT 'still here'"));
      c.commit();
    }
  }

  /** The driver's large objects use the protocol's function call. */
  static void largeObjects() throws Exception {
    try (Connection c = Transcript.connect()) {
      c.setAutoCommit(false);
      LargeObjectManager m = c.unwrap(PGConnection.class).getLargeObjectAPI();
      long oid = m.createLO();
      LargeObject lo = m.open(oid);
      lo.write("0123456789".repeat(100000).getBytes(StandardCharsets.UTF_8));
      lo.seek(5);
      lo.write("XXXXX".getBytes(StandardCharsets.UTF_8));
      lo.close();
      c.commit();
      lo = m.open(oid);
      byte[] all = lo.read(2000000);
      Transcript.say(all.length, Transcript.md5(all), lo.size(), lo.tell());
      lo.close();
      m.delete(oid);
      c.commit();
      Transcript.refused("deleted", () -> m.open(oid)); // its OID is left out
      c.rollback();
    }
  }

  static void large() throws Exception {
    try (Connection c = Transcript.connect()) {
      Transcript.exec(c, "CREATE TABLE lg (b bytea)");
      Transcript.exec(c, "ALTER TABLE lg ALTER b SET STORAGE EXTERNAL");
      byte[] data = "0123456789".repeat(Transcript.BIG / 10).getBytes(StandardCharsets.UTF_8);
      try (PreparedStatement p = c.prepareStatement("INSERT INTO lg VALUES (?)")) {
        p.setBytes(1, data);
        p.executeUpdate();
      }
      try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT b FROM lg")) {
        r.next();
        byte[] back = r.getBytes(1);
        Transcript.say(back.length, Transcript.md5(back));
      }
      Transcript.exec(c, "TRUNCATE lg");
    }
  }

  static void sessionState() throws Exception {
    try (Connection c = Transcript.connect(); Connection a = Transcript.connect(); Connection b = Transcript.connect()) {
      a.setAutoCommit(false);
      b.setAutoCommit(false);
      Transcript.exec(c, "CREATE SCHEMA mine");
      c.setSchema("mine");
      Transcript.exec(c, "SET work_mem = '5MB'");
      Transcript.exec(c, "CREATE TEMP TABLE tmp AS SELECT 7 AS a");
      for (int i = 0; i < 3; i++) {
        Transcript.rows(a, "SELECT 1");
        Transcript.rows(b, "SELECT 1");
        Transcript.say(c.getSchema(), Transcript.rows(c, "SHOW work_mem"), Transcript.rows(c, "SELECT * FROM tmp"), a.getSchema(), Transcript.rows(b, "SHOW work_mem"));
        a.rollback();
        b.commit();
      }
      c.setNetworkTimeout(Runnable::run, 5000);
      c.setClientInfo("ApplicationName", "renamed");
      Transcript.say(Transcript.rows(c, "SHOW application_name"), c.unwrap(PGConnection.class).getParameterStatus("application_name"));
    }
  }
}
