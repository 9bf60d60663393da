import java.security.MessageDigest;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/** What the JDBC sections share: connections, sections, expected errors. */
final class Transcript {
  static final int BIG = 16 * 1024 * 1024;
  private static final long SECTION_TIMEOUT_MILLIS = 30_000;

  /** One section; what it says is compared. */
  interface Section {
    void run() throws Exception;
  }

  /** A call that must fail. */
  interface Call {
    Object run() throws Exception;
  }

  private Transcript() {}

  static synchronized void say(Object... values) {
    StringBuilder line = new StringBuilder();
    for (Object v : values) {
      line.append(line.length() == 0 ? "" : " ").append(show(v));
    }
    System.out.println(line);
  }

  static String show(Object value) {
    if (value instanceof byte[]) {
      StringBuilder hex = new StringBuilder("bytes:");
      for (byte b : (byte[]) value) {
        hex.append(String.format("%02x", b));
      }
      return hex.toString();
    }
    if (value instanceof Object[]) {
      return Arrays.deepToString((Object[]) value);
    }
    if (value instanceof Array) {
      try {
        return show(((Array) value).getArray());
      } catch (SQLException e) {
        return e.toString();
      }
    }
    return String.valueOf(value);
  }

  static void refused(String what, Call call) throws Exception {
    try {
      say("FAIL:", what, "succeeded:", call.run());
    } catch (SQLException e) {
      String fields = "";
      if (e instanceof PSQLException && ((PSQLException) e).getServerErrorMessage() != null) {
        ServerErrorMessage m = ((PSQLException) e).getServerErrorMessage();
        fields = String.format("%s %s detail %s hint %s position %d where %s on %s.%s.%s type %s constraint %s", m.getSeverity(),
            m.getMessage().replaceAll("large object [0-9]+", "large object"), m.getDetail(),
            m.getHint(), m.getPosition(), m.getWhere(), m.getSchema(), m.getTable(), m.getColumn(), m.getDatatype(), m.getConstraint());
      }
      say(what, "error", e.getSQLState(), e.getClass().getSimpleName(), fields);
    }
  }

  /** Connects by libpq's environment; more is "name=value" each. */
  static Connection connect(String... more) throws SQLException {
    Properties p = new Properties();
    p.setProperty("user", System.getenv("PGUSER"));
    p.setProperty("password", System.getenv("PGPASSWORD"));
    p.setProperty("sslmode", System.getenv("PGSSLMODE"));
    p.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
    p.setProperty("loginTimeout", "20");
    p.setProperty("ApplicationName", "");
    String database = System.getenv("PGDATABASE");
    for (String m : more) {
      String[] pair = m.split("=", 2);
      if (pair[0].equals("database")) {
        database = pair[1];
      } else {
        p.setProperty(pair[0], pair[1]);
      }
    }
    return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + database, p);
  }

  /** Returns when a statement that holds the mark runs, on whatever node. */
  static void waitRunning(String mark) throws Exception {
    List<Connection> nodes = new ArrayList<>();
    for (String port : System.getenv("NODE_PORTS").split(" ")) {
      Properties p = new Properties();
      p.setProperty("user", "postgres");
      p.setProperty("sslmode", "disable");
      nodes.add(DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + port + "/" + System.getenv("PGDATABASE"), p));
    }
    boolean running = false;
    while (!running) {
      for (Connection node : nodes) {
        running |= !rows(node, "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
            + " AND position('" + mark + "' in query) > 0").isEmpty();
      }
      Thread.sleep(10);
    }
    for (Connection node : nodes) {
      node.close();
    }
  }

  static void exec(Connection c, String sql) throws SQLException {
    try (Statement s = c.createStatement()) {
      s.execute(sql);
    }
  }

  static List<String> rows(Connection c, String sql) throws SQLException {
    try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
      return rows(r);
    }
  }

  static List<String> rows(ResultSet r) throws SQLException {
    List<String> all = new ArrayList<>();
    ResultSetMetaData m = r.getMetaData();
    while (r.next()) {
      List<String> row = new ArrayList<>();
      for (int i = 1; i <= m.getColumnCount(); i++) {
        row.add(show(r.getObject(i)));
      }
      all.add(row.toString());
    }
    return all;
  }

  static String md5(byte[] data) throws Exception {
    return show(MessageDigest.getInstance("MD5").digest(data));
  }

  /** Runs the sections, those named in only if there are any. */
  static void run(LinkedHashMap<String, Section> sections, String[] only) throws Exception {
    boolean failed = false;
    for (Map.Entry<String, Section> e : sections.entrySet()) {
      if (only.length > 0 && !Arrays.asList(only).contains(e.getKey())) {
        continue;
      }
      System.out.println("== " + e.getKey());
      Thread main = Thread.currentThread();
      Thread watch = new Thread(() -> {
        try {
          Thread.sleep(SECTION_TIMEOUT_MILLIS);
        } catch (InterruptedException done) {
          return;
        }
        say("FAIL: it hung at", main.getStackTrace());
        System.out.flush();
        Runtime.getRuntime().halt(1);
      });
      watch.start();
      try {
        e.getValue().run();
      } catch (Exception unexpected) {
        failed = true;
        say("FAIL:", unexpected);
        for (StackTraceElement at : unexpected.getStackTrace()) {
          if (!at.getClassName().startsWith("java")) {
            say("  ", at);
          }
        }
      }
      watch.interrupt();
      watch.join();
    }
    System.out.flush();
    System.exit(failed ? 1 : 0);
  }
}
