"""Print docs/report_schema.md, the reference of unlearning_report.json.

python tools/report_schema.py > docs/report_schema.md
"""

from hf_unlearn.report.reference import schema_page

if __name__ == "__main__":
    print(schema_page(), end="")
