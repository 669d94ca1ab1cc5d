"""Whether a store is whole: what its objects say of each other, and whether each opens. Nothing in it is changed."""
