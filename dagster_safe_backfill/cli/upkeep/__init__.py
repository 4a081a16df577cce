"""What the verbs that look after tables read and do: history, diff, rollback, retention and doctor."""
