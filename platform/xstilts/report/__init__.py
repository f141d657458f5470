"""From stored plans and records to tables, intervals and a page; reads only, and never loads torch."""
