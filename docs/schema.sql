-- The tables of virtual users, as docs/VIRTUAL.md explains them, for MariaDB and
-- MySQL. `qsend sql init` makes them. Columns may be added, and their order does
-- not matter; what is compared is stored in lower case. Each look-up is one probe
-- of one index. 255 characters of a name are four times as many bytes at most, and
-- two of them are what an InnoDB index holds.

-- Who has a mailbox: uid and gid must own the home. `username` may hold dashes
-- and `@`. `password_type` is Password, Crypt-Password or MySQL-Password.
CREATE TABLE IF NOT EXISTS mailbox (
  username VARCHAR(255) NOT NULL,
  uid INT UNSIGNED NOT NULL,
  gid INT UNSIGNED NOT NULL,
  home VARCHAR(1024) NOT NULL,
  password VARCHAR(255) NOT NULL DEFAULT '',
  password_type VARCHAR(32) NOT NULL DEFAULT 'Crypt-Password',
  suspended CHAR(1) NOT NULL DEFAULT 'N',
  PRIMARY KEY (username)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Mail for virtual_username@virtual_host goes to username, or username-ext.
-- A blank virtual_username takes what no other row of the host takes. The name of
-- the table is a word of MySQL's own and stands in backquotes.
CREATE TABLE IF NOT EXISTS `virtual` (
  username VARCHAR(255) NOT NULL,
  ext VARCHAR(255) NOT NULL DEFAULT '',
  virtual_username VARCHAR(255) NOT NULL DEFAULT '',
  virtual_host VARCHAR(255) NOT NULL,
  PRIMARY KEY (virtual_host, virtual_username),
  KEY by_target (username, ext)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What happens to mail for username-alias; several rows make a list. The number
-- gives the table a primary key, which replication wants, and stays out of
-- SELECT * and of INSERT without column names.
CREATE TABLE IF NOT EXISTS alias (
  username VARCHAR(255) NOT NULL,
  alias VARCHAR(255) NOT NULL DEFAULT '',
  alias_username VARCHAR(255) NOT NULL,
  alias_host VARCHAR(2048) NOT NULL DEFAULT '',
  number BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE,
  PRIMARY KEY (number),
  KEY by_user (username, alias)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Hosts whose mail is accepted, besides those in control/rcpthosts.
CREATE TABLE IF NOT EXISTS rcpthosts (
  host VARCHAR(255) NOT NULL,
  PRIMARY KEY (host)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
