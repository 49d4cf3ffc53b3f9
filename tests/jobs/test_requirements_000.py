from nights import Folder, Served, said
from overnight.testing.hosted import text

JOB='''
name = "invoices"
noun = "invoices"
model = "claude-haiku-4-5"
[source]
db = "sqlite:///rows.db"
sql = "select id, text from invoices where department is null"
key = "id"
[prompt]
user = "{{ text }}"
[sink]
db = "sqlite:///rows.db"
sql = "update invoices set department = :value where id = :key and department is null"
[batch]
poll = 0.01
'''
def test_try(folder: Folder, server: Served) -> None:
    folder.table("invoices", ["id", "text", "department"], [("INV-001", "AWS", None),("INV-002", "AWS2", None)])
    folder.job(JOB)
    server.answer = lambda params: text(said(params))
    print(folder.run(server.environment))
    print(folder.run(server.environment))
    print(folder.sql("select * from invoices"), server.batch_ids)
    folder.sql("update invoices set department=null, text='x'||text")
    print(folder.command(server.environment, "run", "job.toml"))
    assert 0
