"""The query language: text to a syntax tree, and a tree's columns out of a document. What runs it is a store's."""
